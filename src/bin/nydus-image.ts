import { nydusImage } from '../cli/nydus-image/program.ts';
import { main } from '../cli/run.ts';

await main(nydusImage);
