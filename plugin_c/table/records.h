/* What the writer remembers: every id that commits have defined, who refers to it, and what the commit under way changes.  Writer's
 * thread only, below publish.c and places.c.
 *
 * Staging makes and notes; no reader can see any of it.  Then either atsk_records_publish() or atsk_records_abort(), which
 * allocate nothing and cannot fail. */
#ifndef ATSK_RECORDS_H
#define ATSK_RECORDS_H

#include "base/atsk_base.h"
#include "table/certificates.h"
#include "base/id_map.h"

#include <stdbool.h>

ATSK_BEGIN_DECLS

struct atsk_record;      /* what is known of an id */
struct atsk_retired;     /* retire.h */
struct atsk_service;     /* endpoints.h */
struct atsk_route_state; /* of a route, keyed by its id; outlives commits */

enum atsk_record_kind { ATSK_RECORD_SERVICE, ATSK_RECORD_CERTIFICATE, ATSK_RECORD_ROUTE };

struct atsk_records {          /* all zero: empty */
  struct atsk_id_map maps[3];  /* by enum atsk_record_kind */
  struct atsk_record *touched; /* by the commit under way */
};

/* --- staging ---------------------------------------------------------------------------------------------------------------- */

/* Stages a service's new endpoint set, of endpoint records as atsk_endpoint_set_create() takes them, and makes the service if need be.
 * `max_failures`: as atsk_endpoint_set_eject_after() takes it.  ATSK_E_NOMEM, or these functions' errors: nothing changed. */
enum atsk_status atsk_records_service(struct atsk_records *records, uint64_t id, struct atsk_span endpoints,
                                      uint32_t max_failures) ATSK_MUST_CHECK;
/* The same for an ExternalName: `port` in host order; errors of atsk_endpoint_set_create_name(). */
enum atsk_status atsk_records_service_name(struct atsk_records *records, uint64_t id, struct atsk_str name, uint16_t port,
                                           uint32_t max_failures) ATSK_MUST_CHECK;

/* Stages a certificate's new material (NULL: none), and makes the certificate if need be.  Takes `material`, also when it fails:
 * ATSK_E_NOMEM. */
enum atsk_status atsk_records_certificate(struct atsk_records *records, uint64_t id,
                                          struct atsk_certificate_material *material) ATSK_MUST_CHECK;

/* Drops a service or certificate, and what was staged for it.  ATSK_E_UNKNOWN if there is none. */
enum atsk_status atsk_records_drop(struct atsk_records *records, enum atsk_record_kind kind, uint64_t id) ATSK_MUST_CHECK;

/* Drops every service and certificate for which the commit under way has staged nothing.  Cannot fail. */
void atsk_records_supersede(struct atsk_records *records);

/* Calls `each` for every service, also those that the commit under way made or drops. */
void atsk_records_services(const struct atsk_records *records, void (*each)(struct atsk_service *service, void *argument),
                           void *argument);

/* --- references: what a virtual host or TLS policy names ------------------------------------------------------------------------ */

/* The struct atsk_service or struct atsk_certificate of `id`, borrowed; NULL: there is none, or the commit drops it. */
void *atsk_records_find(const struct atsk_records *records, enum atsk_record_kind kind, uint64_t id);
/* The state of the route `id`, made if need be; NULL: no memory.  It lives while somebody refers to it: publish ends the others. */
struct atsk_route_state *atsk_records_route(struct atsk_records *records, uint64_t id);
uint64_t atsk_records_route_id(const struct atsk_route_state *route);

/* Takes or gives back one reference to a service or certificate, which is there, dropped or not. */
void atsk_records_ref(struct atsk_records *records, enum atsk_record_kind kind, uint64_t id, bool is_taken);
void atsk_records_route_ref(struct atsk_records *records, struct atsk_route_state *route, bool is_taken);

/* --- publish, abort --------------------------------------------------------------------------------------------------------- */

/* Whether the commit drops something that a virtual host or TLS policy still refers to: it cannot be published so. */
bool atsk_records_has_drop_in_use(const struct atsk_records *records);

/* Swaps in the endpoint sets and certificates that were staged, and ends what was dropped; what readers may still be in is added to
 * *retired.  Before the root is swapped, so that a new virtual host finds them in place. */
void atsk_records_publish(struct atsk_records *records, struct atsk_retired **retired);

/* Undoes all that was staged; after the references of what the commit made were given back. */
void atsk_records_abort(struct atsk_records *records);

ATSK_END_DECLS
#endif
