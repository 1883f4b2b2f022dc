/* Services: stable objects that outlive commits, each with a set of endpoints behind an atomic pointer of its own, so that
 * endpoint churn touches neither trie nor blob.  One writer (publish.c, the controller's thread); any number of readers, each
 * inside a read section.  With publish.c the only files with atomics or liburcu (certificates.c uses the same pattern).
 *
 * Lifetimes.  A set is held by its service while it is the current one, and by every transaction that picked from it; the last
 * one frees it.  The service's own hold ends a grace period after the swap, so a reader that found the set may still take a
 * hold of its own.  An endpoint's runtime state belongs to all sets that have the endpoint: it survives set changes. */
#ifndef ATSK_ENDPOINTS_H
#define ATSK_ENDPOINTS_H

#include "atsk_base.h"
#include "atsk_format.h"

ATSK_BEGIN_DECLS

struct atsk_service;      /* stable */
struct atsk_endpoint_set; /* immutable but for its hold count */

/* --- reader, any thread ------------------------------------------------------------------------------------------------ */

/* Where a request may go, best first.  Owns a hold on the set, and one in-flight count on the endpoint being tried. */
struct atsk_pick {
  struct atsk_endpoint_set *set; /* NULL: nothing held */
  uint32_t first;                /* index of the first choice; the others follow it in the set's order */
  uint32_t n;                    /* choices, 1..ATSK_TRIES_MAX, all different */
  uint32_t current;              /* 0..n-1: the choice that the in-flight count is on */
};

struct atsk_endpoint_address { /* by value: valid after the read section */
  uint8_t addr[16];            /* network order; IPv4 in the first 4 */
  uint16_t port;               /* host order */
  uint8_t family;              /* enum atsk_endpoint_family, or 0: `name` is to be resolved (ExternalName) */
  struct atsk_str name;        /* borrowed from the set: valid while the pick is held */
};

/* Picks from the service's current endpoints, in turn (round robin); inside a read section.  ATSK_MISS: none is there. */
enum atsk_status atsk_service_pick(struct atsk_service *service, struct atsk_pick *pick) ATSK_MUST_CHECK;

/* The pick's choice number `choice` (0..n-1).  While the pick is held; no read section needed. */
void atsk_pick_address(const struct atsk_pick *pick, uint32_t choice, struct atsk_endpoint_address *out);

/* Moves the in-flight count to `choice`, and records that the choice before it failed. */
void atsk_pick_advance(struct atsk_pick *pick, uint32_t choice);

/* Gives everything back; the pick is empty then.  Legal on an empty one.  Any thread, no read section needed. */
void atsk_pick_release(struct atsk_pick *pick);

/* --- writer, inside publish.c only --------------------------------------------------------------------------------------- */

struct atsk_retired; /* retire.h */

struct atsk_service *atsk_service_create(uint64_t id); /* NULL: no memory */

/* Builds a set from `records` (n * sizeof(struct atsk_endpoint_record) hostile bytes of any alignment, sorted, no duplicates), taking
 * over from the service's current set the runtime state of the endpoints that stay; linear.  Not visible until _swap.
 * ATSK_E_TRUNCATED, _RANGE, _LAYOUT, _ORDER, _NOMEM. */
enum atsk_status atsk_endpoint_set_create(const struct atsk_service *service, struct atsk_span records,
                                          struct atsk_endpoint_set **out) ATSK_MUST_CHECK;
/* The set of an ExternalName service: one choice, to be resolved.  Copies `name`, a normalised host.  ATSK_E_RANGE, _NOMEM. */
enum atsk_status atsk_endpoint_set_create_name(const struct atsk_service *service, struct atsk_str name, uint16_t port,
                                               struct atsk_endpoint_set **out) ATSK_MUST_CHECK;
void atsk_endpoint_set_destroy(struct atsk_endpoint_set *set); /* of a set that was never swapped in; NULL is legal */

/* Takes `set`, and adds the former one to *retired, whose grace period the caller arranges.  Cannot fail. */
void atsk_service_swap(struct atsk_service *service, struct atsk_endpoint_set *set, struct atsk_retired **retired);
void atsk_service_retire(struct atsk_service *service,
                         struct atsk_retired **retired); /* with its set; no table leads to it any more */
void atsk_service_destroy(struct atsk_service *service); /* of one that no reader ever saw; NULL is legal */
uint64_t atsk_service_id(const struct atsk_service *service);
uint32_t atsk_service_size(const struct atsk_service *service); /* endpoints in the current set */

/* A service's current endpoints, as a commit handed them over.  Borrowed: inside a read section. */
struct atsk_endpoints_view {
  const struct atsk_endpoint_set *set;
  uint32_t n;           /* endpoint records; 0 for an ExternalName */
  struct atsk_str name; /* of an ExternalName; else absent */
  uint16_t port;        /* the name's, host order */
};
void atsk_service_view(const struct atsk_service *service, struct atsk_endpoints_view *out);
void atsk_endpoints_record(const struct atsk_endpoints_view *view, uint32_t i, struct atsk_endpoint_record *out); /* i < n */

ATSK_END_DECLS
#endif
