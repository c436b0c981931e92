// Writes rows into a database of chunks until it is killed. Arguments: database, cache file, number of the round.
import { collectingLogger } from '../../../../test/conformance/cache-suite.ts';
import { ChunkDatabase } from '../chunk-database.ts';

const [, , path = '', file = '', round = '0'] = process.argv;
const database = ChunkDatabase.open(path, collectingLogger([]));
let next = Number(round) * 1_000_000;
setInterval(() => {
  const rows = Array.from({ length: 300 }, () => {
    const n = next++;
    return { id: `Blake3:${n.toString(16).padStart(64, '0')}`, offset: n * 4096 };
  });
  database.add(file, rows);
  if (database.count(file) > 0) process.stdout.write('.');
}, 1);
