/* The end of HTTP/1 request headers that do not end.  Traffic Server 9.2 bounds a header's time by transaction_active_timeout_in, but looks
 * only at connections on which nothing has come for a second (InactivityCop, UnixNet.cc): one that drips is never looked at.  Here every
 * thread looks at its HTTP/1 connections itself, a dozen times in that record's time, and cuts those whose header is older.
 *
 * A connection counts a request when its first byte has come (Http1ClientSession::new_transaction), the remap hook says when its header is
 * whole: between the two it is being read.  Requests of other rules than ours do not pass the remap hook: theirs is whole when
 * anything has been sent to the client since, and silence is Traffic Server's own to end, so that what is cut of them is an upload that is
 * older than the record allows.  HTTP/2 has http2.incomplete_header_timeout_in.
 *
 * A request costs a look at its connection's user argument; a connection two hooks and 80 bytes.  ATS's threads. */
#ifndef ATSK_SLOW_HEADERS_H
#define ATSK_SLOW_HEADERS_H

#include "hooks/ats.h"
#include "base/atsk_base.h"

ATSK_BEGIN_DECLS

/* Begins, with the record's value as it is now; 0: never.  From TSRemapInit alone (without the remap hook every request would seem to be
 * another rule's), any number of times. */
ATSK_API void atsk_slow_headers_start(void);

/* From the remap hook: the header of the connection's present request is whole. */
void atsk_slow_headers_whole(TSHttpTxn txnp);

ATSK_END_DECLS
#endif
