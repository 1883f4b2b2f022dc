/* Under which URL ATS caches a request's answer.  ATS's threads, from the remap hook; only with --cache=on. */
#ifndef ATSK_CACHE_KEY_H
#define ATSK_CACHE_KEY_H

#include "hooks/ats.h"
#include "base/atsk_base.h"
#include "hooks/incoming.h"

ATSK_BEGIN_DECLS

/* One key for all pods, all versions of the table, and all spellings of host and default port; http and https apart, since a pod is
 * told which it is (X-Forwarded-Proto) and may redirect by it.  Path and query count as they were sent.  A request whose key would be
 * too long is not cached; one for which a plugin before us in the rule has chosen a key keeps that. */
void atsk_cache_key_set(TSHttpTxn txnp, const struct atsk_incoming *in);

ATSK_END_DECLS
#endif
