/* A request's way through us: from the remap hook to the chosen pod, and on to another one if that fails.  With incoming,
 * forwarded, cache_key and respond the only files that call TSHttpTxn*.  ATS's threads. */
#ifndef ATSK_TXN_H
#define ATSK_TXN_H

#include "hooks/ats.h"
#include "base/atsk_base.h"

ATSK_BEGIN_DECLS

/* Makes what transactions share; once, at plugin load.  ATSK_E_STATE with `why`. */
enum atsk_status atsk_txn_init(char *why, size_t why_size) ATSK_MUST_CHECK;

/* TSRemapDoRemap: answers the request itself, or rewrites it to a pod and arranges for the next ones. */
ATSK_API TSRemapStatus atsk_txn_remap(TSHttpTxn txnp, TSRemapRequestInfo *rri);

ATSK_END_DECLS
#endif
