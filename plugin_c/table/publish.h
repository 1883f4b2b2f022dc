/* THE published table: one atomic root, read sections, commits, reclamation (liburcu).
 *
 * The protocol.  Readers (ATS threads): atsk_read_begin() opens a read section and loads the root; everything reached from it
 * stays valid until atsk_read_end(), and no longer: values are copied, an endpoint set is held by a counted reference
 * (endpoints.h).  A read section takes no lock, makes no system call, allocates nothing and must not block.
 * Writer (the controller's thread, one at a time, refused otherwise): atsk_commit_begin(); any number of staging calls, each of
 * which validates its bytes and does every allocation; atsk_commit_publish() swaps in new endpoint sets and certificates,
 * then the root, and cannot fail; or atsk_commit_abort(), after which the table is as before.  What was replaced is freed
 * after a grace period; retire nodes are members of what they retire. */
#ifndef ATSK_PUBLISH_H
#define ATSK_PUBLISH_H

#include "base/atsk_base.h"
#include "table/certificates.h"
#include "endpoints/endpoints.h"
#include "table/places.h"
#include "table/trie.h"

ATSK_BEGIN_DECLS

/* --- readers ------------------------------------------------------------------------------------------------------------- */

/* Opens a read section.  NULL: nothing was published yet; atsk_read_end() is due all the same. */
const struct atsk_table *atsk_read_begin(void);
void atsk_read_end(void);
uint64_t atsk_table_version(void); /* 0: nothing was published yet */
/* The id that a commit gave the route: the same from commit to commit, while atsk_route_state's address may be another's one day. */
uint64_t atsk_route_id(const struct atsk_route_state *route);

/* --- the writer --------------------------------------------------------------------------------------------------------- */

enum atsk_vhost_place { /* where a virtual host or TLS policy stands; the numbers cross into Python */
                        ATSK_PLACE_EXACT    = 0,
                        ATSK_PLACE_WILDCARD = 1, /* host without its leading "*." */
                        ATSK_PLACE_NO_HOST  = 2, /* virtual host only; host is empty */
                        ATSK_PLACE_FALLBACK =
                          3, /* virtual host: the global default backend; TLS: the default certificate; host is empty */
};

/* ATSK_E_STATE if one is open, ATSK_E_NOMEM.  Waits for reclamation when more than some 20 MB wait for it; so never inside a read
 * section, and never on an ATS thread. */
enum atsk_status atsk_commit_begin(void) ATSK_MUST_CHECK;

/* Creates the service, or gives it a new endpoint set.  `records` is n * sizeof(struct atsk_endpoint_record) bytes, sorted, without
 * duplicates; `max_failures`: of one of them in a row, that eject it, 0 never, ATSK_NONE as the process's rules say.  A new id becomes
 * usable by later vhost calls of the same commit. */
enum atsk_status atsk_commit_service(uint64_t id, struct atsk_span records, uint32_t max_failures) ATSK_MUST_CHECK;
enum atsk_status atsk_commit_service_name(uint64_t id, struct atsk_str name, uint16_t port,
                                          uint32_t max_failures) ATSK_MUST_CHECK; /* ExternalName */
/* ATSK_E_UNKNOWN if there is none; publishing refuses (ATSK_E_STATE) while a virtual host still refers to it. */
enum atsk_status atsk_commit_service_drop(uint64_t id) ATSK_MUST_CHECK;

enum atsk_status atsk_commit_certificate(uint64_t id, struct atsk_span chain_der, struct atsk_span key_der) ATSK_MUST_CHECK;
enum atsk_status atsk_commit_certificate_empty(uint64_t id) ATSK_MUST_CHECK; /* known, without material */
enum atsk_status atsk_commit_certificate_drop(uint64_t id) ATSK_MUST_CHECK;

/* Places a virtual host on `local_port`'s listener (made when first used).  Copies `blob`.  Service ids must be known; route
 * ids are created on first use and live while a published blob names them. */
enum atsk_status atsk_commit_vhost(uint16_t local_port, enum atsk_vhost_place place, struct atsk_str host, struct atsk_span blob,
                                   const uint64_t *service_ids, uint32_t n_services, const uint64_t *route_ids,
                                   uint32_t n_routes) ATSK_MUST_CHECK;
/* ATSK_MISS, and nothing changed, if nothing stands there; so does atsk_commit_tls_drop(). */
enum atsk_status atsk_commit_vhost_drop(uint16_t local_port, enum atsk_vhost_place place, struct atsk_str host) ATSK_MUST_CHECK;
enum atsk_status atsk_commit_tls(uint16_t local_port, enum atsk_vhost_place place, struct atsk_str host,
                                 const uint64_t *certificate_ids, uint32_t n_certificates) ATSK_MUST_CHECK;
enum atsk_status atsk_commit_tls_drop(uint16_t local_port, enum atsk_vhost_place place, struct atsk_str host) ATSK_MUST_CHECK;

/* Makes the commit the whole table: what is published and was not put again by it is dropped, virtual hosts, TLS policies, services and
 * certificates.  ATSK_E_NOMEM: abort it. */
enum atsk_status atsk_commit_supersede(void) ATSK_MUST_CHECK;

/* ATSK_E_STATE: it drops a service or certificate in use (or none is open); nothing changed, and the commit stays open, to be put
 * right or aborted.  No other failure. */
enum atsk_status atsk_commit_publish(uint64_t *version) ATSK_MUST_CHECK;
void atsk_commit_abort(void); /* legal when none is open */

/* The writer's own view, between commits: the service of an id (NULL: none, or a commit is open), and all of them (none while one is). */
bool atsk_writer_is_committing(void);
struct atsk_service *atsk_writer_service(uint64_t id);
void atsk_writer_services(void (*each)(struct atsk_service *service, void *argument), void *argument);

/* Waits until every read section that is open now is closed: what the caller has taken out of their reach is its own then.  Never inside a
 * read section, and never on an ATS thread. */
void atsk_readers_wait(void);

/* Waits until everything retired so far is freed.  Tests and the end of a soak; never on an ATS thread. */
void atsk_reclaim_barrier(void);

ATSK_END_DECLS
#endif
