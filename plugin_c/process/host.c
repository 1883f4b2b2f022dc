/* See host.h.  The only file that talks to Traffic Server about the process rather than about one transaction or handshake. */
#include "process/host.h"

#include "hooks/ats.h"
#include "controller/controller.h"
#include "hooks/txn.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STOP_WAIT_MS 1000 /* how long a stop waits for the controller to leave Python */

ATSK_DEBUG_TAG(tag);

static pthread_mutex_t init_lock = PTHREAD_MUTEX_INITIALIZER;
static bool is_set_up; /* under init_lock */

void
atsk_host_log(int level, const char *line)
{
  switch (level) {
  case 0:
    ATSK_DEBUG(tag, "%s", line);
    break;
  case 1:
    TSNote("[atsk8s] %s", line);
    break;
  case 2:
    TSWarning("[atsk8s] %s", line);
    break;
  default:
    TSError("[atsk8s] %s", line);
    break;
  }
}

static size_t
host_server_ports(char *out, size_t room)
{
  TSMgmtString ports = NULL;
  if (TSMgmtStringGet("proxy.config.http.server_ports", &ports) != TS_SUCCESS || ports == NULL) {
    return 0;
  }
  size_t len = strlen(ports);
  if (room > 0) {
    memcpy(out, ports, len < room ? len : room);
  }
  TSfree(ports);
  return len;
}

static int
host_draining(void)
{
  TSMgmtInt draining = 0;
  return TSMgmtIntGet("proxy.node.config.draining", &draining) == TS_SUCCESS && draining != 0;
}

/* Runs first of all atexit handlers, because it is registered last: OpenSSL's own would free what Python's threads still use (4 of 12
 * stops dumped core).  Buffered files are flushed; everything else is the kernel's to take back. */
static void
on_exit_now(void)
{
  fflush(NULL);
  _exit(EXIT_SUCCESS);
}

static int
on_lifecycle(TSCont contp, TSEvent event, void *edata)
{
  (void)contp, (void)edata;
  if (event == TS_EVENT_LIFECYCLE_SHUTDOWN) {
    atsk_controller_stop();
    if (!atsk_controller_wait_returned(STOP_WAIT_MS)) {
      ATSK_DEBUG(tag, "the controller did not return within %d ms; exiting all the same", STOP_WAIT_MS);
    }
    atexit(on_exit_now);
  }
  return 0;
}

static enum atsk_status
set_up(char *why, size_t why_size)
{
  static const struct atsk_controller_host host = {atsk_host_log, host_server_ports, host_draining};
  if (TSTrafficServerVersionGetMajor() != TS_VERSION_MAJOR) {
    (void)snprintf(why, why_size, "built for Traffic Server %d, loaded by %s: install the build for that version", TS_VERSION_MAJOR,
                   TSTrafficServerVersionGet());
    return ATSK_E_STATE;
  }
  /* No mutex: two lifecycle events on different threads abort the server otherwise (APIHook::invoke only tries the lock). */
  TSCont lifecycle = TSContCreate(on_lifecycle, NULL);
  TSLifecycleHookAdd(TS_LIFECYCLE_SHUTDOWN_HOOK, lifecycle);
  atsk_controller_host_set(&host);
  return atsk_txn_init(why, why_size);
}

enum atsk_status
atsk_host_init(const char *name, char *why, size_t why_size)
{
  TSPluginRegistrationInfo info;
  info.plugin_name        = name;
  info.vendor_name        = "atsk8s";
  info.support_email      = "https://atsk8s.io";
  enum atsk_status status = ATSK_OK;
  pthread_mutex_lock(&init_lock);
  /* A remap plugin may not register in 9.2 (no global plugin context); the name is only for ATS's own log then. */
  (void)TSPluginRegister(&info);
  if (!is_set_up) {
    status    = set_up(why, why_size);
    is_set_up = status == ATSK_OK;
  }
  pthread_mutex_unlock(&init_lock);
  return status;
}

enum atsk_status
atsk_host_thread(void *(*entry)(void *), void *arg)
{
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before); /* the new thread inherits it: ATS's signals are ATS's */
  TSThread thread = TSThreadCreate(entry, arg);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return thread != NULL ? ATSK_OK : ATSK_E_NOMEM;
}
