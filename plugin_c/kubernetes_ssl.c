/* kubernetes_ssl.so: one plugin.config line.  Wiring only: everything is in libatsk8s.so, which both plugins share. */
#include "hooks/ats.h"
#include "process/host.h"
#include "process/pyhost.h"
#include "hooks/tls.h"

#include <stdio.h>

#define START_WAIT_MS 10000 /* until Python has parsed --start-timeout-ms */
#define WHY_MAX 2048

ATSK_API void
TSPluginInit(int argc, const char *argv[])
{
  char why[WHY_MAX] = "";
  if (atsk_host_init("kubernetes_ssl", why, sizeof why) != ATSK_OK) {
    TSEmergency("[atsk8s] kubernetes_ssl.so: %s", why);
    return;
  }
  enum atsk_status status = atsk_pyhost_start(ATSK_PLUGIN_SSL, argc - 1, argv + 1, START_WAIT_MS, why, sizeof why);
  if (status == ATSK_E_TIMEOUT) {
    TSWarning("[atsk8s] starting without a table, every handshake and request fails until there is one: %s", why);
  } else if (status != ATSK_OK) {
    TSEmergency("[atsk8s] kubernetes_ssl.so: %s", why); /* TSPluginInit has no other way to refuse */
    return;
  }
  atsk_tls_install();
}
