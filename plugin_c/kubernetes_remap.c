/* kubernetes_remap.so: one @plugin of a remap.config line.  Wiring only, and no state: ATS loads copies of this file, while
 * libatsk8s.so, which both plugins share, is loaded once. */
#include "hooks/ats.h"
#include "process/host.h"
#include "process/pyhost.h"
#include "hooks/slow_headers.h"
#include "hooks/txn.h"

#include <stdio.h>

#define START_WAIT_MS 10000 /* until Python has parsed --start-timeout-ms */
#define WHY_MAX 2048

ATSK_API TSReturnCode
TSRemapInit(TSRemapInterface *api_info, char *errbuf, int errbuf_size)
{
  size_t room = errbuf_size > 0 ? (size_t)errbuf_size : 0;
  if (api_info == NULL || api_info->size < sizeof(TSRemapInterface) || api_info->tsremap_version < TSREMAP_VERSION) {
    (void)snprintf(errbuf, room, "[atsk8s] kubernetes_remap.so is not built for this Traffic Server's remap interface");
    return TS_ERROR;
  }
  if (atsk_host_init("kubernetes_remap", errbuf, room) != ATSK_OK) {
    return TS_ERROR;
  }
  atsk_slow_headers_start();
  return TS_SUCCESS;
}

ATSK_API TSReturnCode
TSRemapNewInstance(int argc, char *argv[], void **ih, char *errbuf, int errbuf_size)
{
  char why[WHY_MAX] = "";
  *ih               = NULL; /* an instance has no state of its own */
  /* argv: the rule's two URLs, then the @pparam values. */
  enum atsk_status status =
    atsk_pyhost_start(ATSK_PLUGIN_REMAP, argc > 2 ? argc - 2 : 0, (const char *const *)(argv + 2), START_WAIT_MS, why, sizeof why);
  if (status == ATSK_E_TIMEOUT) {
    TSWarning("[atsk8s] starting without a table, every request is answered 503 until there is one: %s", why);
  } else if (status != ATSK_OK) {
    TSError("[atsk8s] kubernetes_remap.so: %s", why); /* whole: ATS cuts errbuf at 2 KiB, and remap.config's error shows it again */
    (void)snprintf(errbuf, errbuf_size > 0 ? (size_t)errbuf_size : 0, "[atsk8s] %s", why);
    return TS_ERROR;
  }
  return TS_SUCCESS;
}

ATSK_API void
TSRemapDeleteInstance(void *ih)
{
  (void)ih;
}

ATSK_API TSRemapStatus
TSRemapDoRemap(void *ih, TSHttpTxn txnp, TSRemapRequestInfo *rri)
{
  (void)ih;
  return atsk_txn_remap(txnp, rri);
}
