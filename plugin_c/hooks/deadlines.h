/* A transaction's time limits, told to Traffic Server.  Its clocks on the way that our requests take (9.2.9, HttpSM.cc):
 *
 *   connecting                       the server side's inactivity, TSHttpTxnConnectTimeoutSet
 *   pod silent, before its answer    the server side's inactivity, TSHttpTxnNoActivityTimeoutSet (GET, POST and all others alike)
 *   pod silent, within its answer    the same
 *   client's body stalls             the client side's inactivity, transaction_no_activity_timeout_in, set anew when the body begins
 *   pod does not read the body       the same: nothing moves on either side, and the client's clock is the shorter one
 *   client does not read the answer  the client side's inactivity, set anew when the answer's header goes out
 *   while a pod is silent            the client side's inactivity runs too, since the first byte of the request (HTTP/1 connection, HTTP/2
 *                                    stream) with the value that records.config has: the plugin cannot set it anew but for HTTP/1
 *   all of a request                 the server side's active timeout, TSHttpTxnActiveTimeoutSet, anew for each attempt, and the client
 *                                    side's, transaction_active_timeout_in, which is set anew after the remap hook
 *   WebSocket                        both sides' from websocket.*
 *
 * All are looked at once a second, where nothing has come in that second: what they end, they end up to two seconds late, and what drips
 * they do not end.  So a rule's request-timeout has an event of its own behind Traffic Server's clocks.  ATS's threads. */
#ifndef ATSK_DEADLINES_H
#define ATSK_DEADLINES_H

#include <stdbool.h>

#include "hooks/ats.h"
#include "base/atsk_base.h"
#include "policy/timeouts.h"

ATSK_BEGIN_DECLS

/* Reads what records.config says of the clocks that cannot be set for one transaction; once, at plugin load. */
void atsk_deadlines_init(void);

enum atsk_deadlines_kind {
  ATSK_DEADLINES_PLAIN  = 0, /* without a body */
  ATSK_DEADLINES_UPLOAD = 1, /* the client's body comes first: atsk_deadlines_answer() is due when it has been sent */
  ATSK_DEADLINES_TUNNEL = 2, /* asks for an upgrade: no limits once it is granted */
};

/* From the remap hook. */
void atsk_deadlines_apply(TSHttpTxn txnp, const struct atsk_timeouts *timeouts, enum atsk_deadlines_kind kind);

/* An attempt after the first one begins, `left_ms` of the request's time are left (UINT32_MAX: it has no limit). */
void atsk_deadlines_attempt(TSHttpTxn txnp, uint32_t left_ms);

/* From the send-response hook of an upload: the client's side waits for a pod's answer from now on, no longer for the client. */
void atsk_deadlines_answer(TSHttpTxn txnp, const struct atsk_timeouts *timeouts);

/* Makes the kernel ask whether the other end of a tunnel is there, on the client's connection, and on the pod's if there is one: a peer
 * that vanished is found within ATSK_DEADLINES_DEAD_S, however long the silence. */
#define ATSK_DEADLINES_DEAD_S 150
void atsk_deadlines_tunnel_watch(TSHttpTxn txnp);

/* The end of a request that has a limit of its own and has not ended by Traffic Server's clocks: it drips, in whichever direction.  First the
 * pod's connection is cut, which ends an attempt, an answer and a body under way; then, if the transaction lives on, an HTTP/1
 * client's.  (An HTTP/2 client's carries other requests: a stream that its client reads in drips has no end but its own.) */
struct atsk_deadline {
  TSHttpTxn txnp;
  TSCont cont;      /* NULL: none yet; kept for the next transaction, since destroying one takes an event */
  TSAction pending; /* the next cut; NULL: none */
  uint64_t end_ms;  /* of atsk_deadlines_now_ms() */
  bool is_over;     /* cut once */
};

/* From the remap hook.  `deadline` stays where it is until _end; all zeros before the first time. */
void atsk_deadline_begin(struct atsk_deadline *deadline, TSHttpTxn txnp, uint32_t request_ms);

/* Ends it, on the thread that began it; legal if it was not begun. */
void atsk_deadline_end(struct atsk_deadline *deadline);

/* What records.config gives a request's header [s]; 0: no limit.  As it is now. */
uint32_t atsk_deadlines_header_s(void);

/* Milliseconds on a steady clock that any thread reads without a system call; never 0. */
uint64_t atsk_deadlines_now_ms(void);

ATSK_END_DECLS
#endif
