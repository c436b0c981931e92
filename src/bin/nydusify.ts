import { main } from '../cli/nydusify/run.ts';

await main();
