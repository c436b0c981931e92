import { nydusctl } from '../cli/nydusctl/program.ts';
import { main } from '../cli/run.ts';

await main(nydusctl);
