// How a program for Node ends: a user's mistake is one line and status 2; anything else keeps its traceback.

import { Mistake } from "./step.js";

export async function command(main) {
  try {
    await main();
  } catch (error) {
    if (!(error instanceof Mistake || error.syscall)) throw error; // with a syscall: a missing file
    console.error(error.message);
    process.exitCode = 2;
  }
}
