/* Endpoint sets: built from a commit's records, counted, freed by whoever lets go last.  The writer builds; any thread releases.
 * Layout: endpoint_layout.h. */
#ifndef ATSK_ENDPOINT_SET_H
#define ATSK_ENDPOINT_SET_H

#include "base/atsk_base.h"
#include "blob/atsk_format.h"

ATSK_BEGIN_DECLS

struct atsk_service;      /* stable */
struct atsk_endpoint_set; /* immutable but for its hold count and turn */

/* Builds a set from `records` (n * sizeof(struct atsk_endpoint_record) hostile bytes of any alignment, sorted, no duplicates), taking
 * over from the service's current set the runtime state of the endpoints that stay; linear.  Not visible until _swap; given back by
 * _destroy, or taken by atsk_service_swap().  ATSK_E_TRUNCATED, _RANGE, _LAYOUT, _ORDER, _NOMEM. */
enum atsk_status atsk_endpoint_set_create(struct atsk_service *service, struct atsk_span records,
                                          struct atsk_endpoint_set **out) ATSK_MUST_CHECK;
/* The set of an ExternalName service: one choice, to be resolved.  Copies `name`, a normalised host.  ATSK_E_RANGE, _NOMEM. */
enum atsk_status atsk_endpoint_set_create_name(struct atsk_service *service, struct atsk_str name, uint16_t port,
                                               struct atsk_endpoint_set **out) ATSK_MUST_CHECK;

/* Of a set that was not swapped in yet: how many failures of an endpoint in a row eject it (health.h).  ATSK_NONE, as it was made: as the
 * process's rules say.  ATSK_E_RANGE. */
enum atsk_status atsk_endpoint_set_eject_after(struct atsk_endpoint_set *set, uint32_t max_failures) ATSK_MUST_CHECK;

void atsk_endpoint_set_destroy(struct atsk_endpoint_set *set); /* of a set that was never swapped in; NULL is legal */

/* Gives back one hold of a set: its service's, or a pick's. */
void atsk_endpoint_set_release(struct atsk_endpoint_set *set);
/* Gives back one hold of a service: a set's, or the one that a new service comes with. */
void atsk_service_release(struct atsk_service *service);

ATSK_END_DECLS
#endif
