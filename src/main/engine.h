/* engine.h - the engine: the process in which everything but supervision happens, wired together.
 *
 *   control loop (this thread):  sup_client  run  api  objects -> plan
 *   worker loops (one thread per core):  proxy
 *
 * Between them go the messages of enum engine_msg, each way through a bounded mailbox; what does not fit waits in order in
 * the sender's outbox, so nothing is lost and nothing blocks.
 */
#ifndef ENGINE_H
#define ENGINE_H

#include "api.h"

/* The private command `weir engine`: started by sup, never by people. Returns the exit status. */
int engine_main(int argc, char **argv);

#endif
