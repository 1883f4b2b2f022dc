/* A normalised request -> what to do with it.  Pure: same table and request, same answer; inside the caller's read section. */
#ifndef ATSK_MATCH_H
#define ATSK_MATCH_H

#include "table/publish.h"
#include "table/request.h"

ATSK_BEGIN_DECLS

enum atsk_match_kind {
  ATSK_MATCH_RULE    = 0, /* vhost and rule are set */
  ATSK_MATCH_NO_HOST = 1, /* 404: no virtual host, no host-less rule, no global default */
  ATSK_MATCH_NO_PATH = 2, /* 404: the host is known, the path is not, and there is no default */
};

struct atsk_match {
  enum atsk_match_kind kind;
  const struct atsk_published_vhost *vhost; /* borrowed from the table */
  const struct atsk_blob_rule *rule;        /* borrowed from the vhost's blob */
};

/* Host: exact, else its wildcard, else host-less rules; then the path within that virtual host alone (a miss never falls to a
 * wildcard's or host-less rule's route), its default rule, then the listener's fallback. */
struct atsk_match atsk_match_request(const struct atsk_table *table, uint16_t local_port, struct atsk_str host,
                                     struct atsk_str path);

/* The listener's TLS policy for a normalised SNI (empty: none sent): exact, wildcard, default; NULL if there is none. */
const struct atsk_tls_policy *atsk_match_sni(const struct atsk_table *table, uint16_t local_port, struct atsk_str sni);

/* The service that `pick` chooses among the rule's backends by weight; NULL when the rule has none. */
struct atsk_service *atsk_match_service(const struct atsk_match *match, uint64_t pick);

ATSK_END_DECLS
#endif
