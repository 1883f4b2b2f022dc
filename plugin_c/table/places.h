/* What stands where: the table as readers see it, and the commit's working state of it: the listeners to come, and the edits of their host
 * tries.  No atomics: publish.c owns the order in which a table becomes visible, and when a former one is freed. */
#ifndef ATSK_PLACES_H
#define ATSK_PLACES_H

#include "base/atsk_base.h"
#include "table/trie.h"

ATSK_BEGIN_DECLS

/* --- readers, inside a read section ------------------------------------------------------------------------------------------ */

/* What one local port serves.  Today one listener, port 0: every port.  Gateways will bring others. */
struct atsk_listener {
  uint16_t local_port; /* host order; 0: any port that has no listener of its own */
  const struct atsk_trie_node *hosts;
  struct atsk_published_vhost *no_host;  /* rules without a host: requests whose host is in no trie node; or NULL */
  struct atsk_published_vhost *fallback; /* the global default backend: unmatched hosts, and path misses; or NULL */
  struct atsk_tls_policy *default_tls;   /* for a SNI that no host matches, and for none; or NULL */
};

struct atsk_table {
  uint64_t version; /* counts commits, from 1 */
  uint32_t n_listeners;
  const struct atsk_listener *listeners; /* sorted by local_port */
};

/* --- writer, inside publish.c only -------------------------------------------------------------------------------------------- */

struct atsk_listener_edit;
struct atsk_placed;  /* a virtual host or a TLS policy: what stands at a place */
struct atsk_records; /* records.h */
struct atsk_retired; /* retire.h */

/* A place, checked. */
struct atsk_place {
  struct atsk_str host;     /* in the form that lookups use, borrowed for the call; empty: one of the places without a host */
  enum atsk_host_kind kind; /* of a host that is not empty */
  bool is_fallback;         /* without a host: the global default backend or certificate; else the rules without a host */
  uint16_t local_port;      /* host order */
};

/* One commit's; all zero before atsk_places_begin(). */
struct atsk_places {
  struct atsk_records *records;
  struct atsk_table_made *table;        /* room for n_listeners; NULL once it was finished */
  struct atsk_listener_edit *listeners; /* sorted by port */
  uint32_t n_listeners;
  struct atsk_placed *made;     /* not published yet */
  struct atsk_placed *replaced; /* published, and not in the table to come */
};

/* Begins with what `current` (NULL: nothing) serves.  Borrows `records`, which holds all that virtual hosts and TLS policies refer to.
 * ATSK_E_NOMEM: nothing is held. */
enum atsk_status atsk_places_begin(struct atsk_places *places, struct atsk_records *records,
                                   const struct atsk_table *current) ATSK_MUST_CHECK;

/* Puts a virtual host at its place, on a listener made if need be: a copy of `blob`, which was validated and has as many services and
 * routes as are given; services must be known, routes are made.  ATSK_E_UNKNOWN, _NOMEM, _HOST: nothing changed in meaning. */
enum atsk_status atsk_places_vhost(struct atsk_places *places, const struct atsk_place *at, struct atsk_span blob,
                                   const uint64_t *service_ids, uint32_t n_services, const uint64_t *route_ids,
                                   uint32_t n_routes) ATSK_MUST_CHECK;
/* Puts a TLS policy at its place, which has a host or is the fallback; `n_certificates` is not 0.  Errors likewise. */
enum atsk_status atsk_places_policy(struct atsk_places *places, const struct atsk_place *at, const uint64_t *certificate_ids,
                                    uint32_t n_certificates) ATSK_MUST_CHECK;
/* Take away what stands there.  ATSK_MISS: nothing does; ATSK_E_NOMEM, _HOST. */
enum atsk_status atsk_places_vhost_drop(struct atsk_places *places, const struct atsk_place *at) ATSK_MUST_CHECK;
enum atsk_status atsk_places_policy_drop(struct atsk_places *places, const struct atsk_place *at) ATSK_MUST_CHECK;

/* Takes away everything that stands where it stood in `current`, the table begun with.  ATSK_E_NOMEM: abort the commit. */
enum atsk_status atsk_places_supersede(struct atsk_places *places, const struct atsk_table *current) ATSK_MUST_CHECK;

/* Publishing allocates nothing and cannot fail.  _finish: the table to come, the caller's; a listener that serves nothing any more is
 * left out; `current`: the table begun with.  Then, once the root is swapped, _settle: what the commit made is published, and what it
 * replaced is added to *retired; returns how many.  A grace period later, as readers may still be in what the edits replaced, _free. */
const struct atsk_table *atsk_places_finish(struct atsk_places *places, const struct atsk_table *current);
uint64_t atsk_places_settle(struct atsk_places *places, struct atsk_retired **retired);
void atsk_places_free(struct atsk_places *places);

/* Instead of publishing: undoes all that was done since _begin, and frees it.  Cannot fail. */
void atsk_places_abort(struct atsk_places *places);

/* Adds a table that new readers cannot find to *retired.  Cannot fail. */
void atsk_table_retire(const struct atsk_table *table, struct atsk_retired **retired);

ATSK_END_DECLS
#endif
