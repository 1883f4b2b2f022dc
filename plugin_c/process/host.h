/* The host process: what the core asks of Traffic Server beyond a transaction or a handshake: its log, its records, a thread, its
 * shutdown.  Set up once for both plugins. */
#ifndef ATSK_HOST_H
#define ATSK_HOST_H

#include "base/atsk_base.h"

ATSK_BEGIN_DECLS

/* Registers the plugin called `name` with ATS (TSPluginRegister) and, the first time, the log, the records and the shutdown hook.  From
 * TSPluginInit or TSRemapInit.  ATSK_E_STATE with `why`: a Traffic Server of another major than the headers', or it refused. */
ATSK_API enum atsk_status atsk_host_init(const char *name, char *why, size_t why_size) ATSK_MUST_CHECK;

/* Runs `entry(arg)` on a thread that ATS knows (raw pthreads may not create ATS objects), all signals blocked in it and in the threads it
 * makes.  ATSK_E_NOMEM. */
enum atsk_status atsk_host_thread(void *(*entry)(void *), void *arg) ATSK_MUST_CHECK;

/* One line into ATS's logs: 0 debug (tag atsk8s), 1 note, 2 warning, 3 error. */
ATSK_API void atsk_host_log(int level, const char *line);

ATSK_END_DECLS
#endif
