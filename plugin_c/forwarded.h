/* What a pod is told about the client: X-Forwarded-{For,Proto,Host,Port}.  Copies that an untrusted client sent are removed, not
 * appended to; so are its "@" headers, which plugins take for their own.  ATS's threads, from the remap hook. */
#ifndef ATSK_FORWARDED_H
#define ATSK_FORWARDED_H

#include "ats.h"
#include "atsk_base.h"
#include "controller.h"

ATSK_BEGIN_DECLS

/* `authority` as the client sent it, `port` the one in it (0: none).  Changes the request header `hdr` of `bufp`: pointers into
 * it are void afterwards.  X-Forwarded-For itself is appended by ATS as it builds the pod's request. */
void atsk_forwarded_apply(TSHttpTxn txnp, TSMBuffer bufp, TSMLoc hdr, struct atsk_str authority, uint16_t port,
                          const struct atsk_settings *settings);

ATSK_END_DECLS
#endif
