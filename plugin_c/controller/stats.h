/* Counters: names from one table, added to by any thread without contention, summed by whoever asks.  No decisions. */
#ifndef ATSK_STATS_H
#define ATSK_STATS_H

#include "base/atsk_base.h"

ATSK_BEGIN_DECLS

/* X(id, metric name, label or "", help).  metrics.py renders the same table; a lint test holds them equal. */
#define ATSK_COUNTERS(X)                                                                                                    \
  X(REQUESTS_FORWARDED, "atsk8s_requests_total", "forwarded", "Requests by what became of them")                            \
  X(REQUESTS_NO_HOST, "atsk8s_requests_total", "no_host", "")                                                               \
  X(REQUESTS_NO_PATH, "atsk8s_requests_total", "no_path", "")                                                               \
  X(REQUESTS_NO_ENDPOINT, "atsk8s_requests_total", "no_endpoint", "")                                                       \
  X(REQUESTS_NOT_READY, "atsk8s_requests_total", "not_ready", "")                                                           \
  X(REQUESTS_BAD, "atsk8s_requests_total", "bad_request", "")                                                               \
  X(REQUESTS_HEALTH, "atsk8s_requests_total", "health", "")                                                                 \
  X(REQUESTS_LIMITED, "atsk8s_requests_total", "limited", "")                                                               \
  X(REQUESTS_TOO_LARGE, "atsk8s_requests_total", "too_large", "")                                                           \
  X(REQUESTS_GRPC, "atsk8s_requests_total", "grpc", "")                                                                     \
  X(LIMITED_CLIENT_RATE, "atsk8s_limited_total", "client_rate", "Requests answered 429, by the limit that they were over")  \
  X(LIMITED_CLIENT_CONCURRENCY, "atsk8s_limited_total", "client_concurrency", "")                                           \
  X(LIMITED_TOTAL_RATE, "atsk8s_limited_total", "total_rate", "")                                                           \
  X(LIMITED_TOTAL_CONCURRENCY, "atsk8s_limited_total", "total_concurrency", "")                                             \
  X(LIMITS_UNCOUNTED, "atsk8s_limits_uncounted_total", "", "Requests that passed a limit uncounted: its table was full")    \
  X(BODIES_CUT, "atsk8s_bodies_cut_total", "", "Bodies without a length that were cut when they had become too large")      \
  X(HEADERS_CUT, "atsk8s_headers_cut_total", "", "Connections cut: the request's header dripped for too long")              \
  X(REQUESTS_CUT, "atsk8s_requests_cut_total", "", "Requests cut by request-timeout, as they dripped")                      \
  X(ENDPOINT_FAILURES_CONNECT, "atsk8s_endpoint_failures_total", "connect", "Attempts at an endpoint that failed")          \
  X(ENDPOINT_FAILURES_TIMEOUT, "atsk8s_endpoint_failures_total", "timeout", "")                                             \
  X(ENDPOINT_FAILURES_STATUS, "atsk8s_endpoint_failures_total", "status", "")                                               \
  X(ENDPOINT_FAILURES_OTHER, "atsk8s_endpoint_failures_total", "other", "")                                                 \
  X(ENDPOINTS_EJECTED, "atsk8s_endpoint_health_changes_total", "ejected", "Endpoints left out of picks, or taken in again") \
  X(ENDPOINTS_RESTORED, "atsk8s_endpoint_health_changes_total", "restored", "")                                             \
  X(RETRIES, "atsk8s_retries_total", "", "Attempts at another endpoint within one request")                                 \
  X(RETRIES_REFUSED_BUDGET, "atsk8s_retries_refused_total", "budget", "Attempts not made: over budget or time")             \
  X(RETRIES_REFUSED_TIME, "atsk8s_retries_refused_total", "time", "")                                                       \
  X(AFFINITY_KEPT, "atsk8s_affinity_total", "kept", "Requests with cookie affinity")                                        \
  X(AFFINITY_GIVEN, "atsk8s_affinity_total", "given", "")                                                                   \
  X(SNIPPETS_RAN, "atsk8s_snippets_total", "ran", "Runs of Ingresses' snippets, by what came of them")                      \
  X(SNIPPETS_SYNTAX, "atsk8s_snippets_total", "syntax", "")                                                                 \
  X(SNIPPETS_ERROR, "atsk8s_snippets_total", "error", "")                                                                   \
  X(SNIPPETS_STOPPED, "atsk8s_snippets_total", "stopped", "")                                                               \
  X(SNIPPETS_MEMORY, "atsk8s_snippets_total", "memory", "")                                                                 \
  X(SNIPPETS_SUSPENDED, "atsk8s_snippets_total", "suspended", "")                                                           \
  X(SNIPPETS_NOT_RUN, "atsk8s_snippets_total", "not_run", "")                                                               \
  X(SNIPPET_LINES_DROPPED, "atsk8s_snippet_lines_dropped_total", "", "Log lines of snippets that were too many")            \
  X(TLS_MATCHED, "atsk8s_tls_handshakes_total", "matched", "TLS handshakes by where their certificate came from")           \
  X(TLS_DEFAULT, "atsk8s_tls_handshakes_total", "default", "")                                                              \
  X(TLS_NONE, "atsk8s_tls_handshakes_total", "none", "")                                                                    \
  X(TLS_REFUSED, "atsk8s_tls_handshakes_total", "refused", "")

enum atsk_counter {
#define ATSK_COUNTER_ID(id, name, label, help) ATSK_COUNT_##id,
  ATSK_COUNTERS(ATSK_COUNTER_ID)
#undef ATSK_COUNTER_ID
    ATSK_N_COUNTERS
};

void atsk_count(enum atsk_counter counter); /* any thread; relaxed, never blocks */
uint64_t atsk_counter_sum(enum atsk_counter counter);
const char *atsk_counter_name(enum atsk_counter counter);
const char *atsk_counter_label(enum atsk_counter counter);

ATSK_END_DECLS
#endif
