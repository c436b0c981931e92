import { nydusd } from '../cli/nydusd.ts';
import { main } from '../cli/run.ts';

await main(nydusd);
