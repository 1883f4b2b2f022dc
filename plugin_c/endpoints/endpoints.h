/* Services: stable objects that outlive commits, each with a set of endpoints behind an atomic pointer of its own, so that
 * endpoint churn touches neither trie nor blob.  One writer (publish.c, the controller's thread); any number of readers, each
 * inside a read section.  Who is chosen is balance.h's, who is left out health.h's, how sets are built endpoint_set.h's.
 *
 * Lifetimes.  A set is held by its service while it is the current one, and by every transaction that picked from it; the last
 * one frees it.  The service's own hold ends a grace period after the swap, so a reader that found the set may still take a
 * hold of its own.  An endpoint's runtime state belongs to all sets that have the endpoint: it survives set changes.  A set holds its
 * service, so that what a request learns of an endpoint long after has somewhere to go. */
#ifndef ATSK_ENDPOINTS_H
#define ATSK_ENDPOINTS_H

#include "base/atsk_base.h"
#include "blob/atsk_format.h"
#include "endpoints/balance.h"
#include "endpoints/endpoint_set.h"
#include "endpoints/health.h"

ATSK_BEGIN_DECLS

/* --- reader, any thread ------------------------------------------------------------------------------------------------ */

struct atsk_endpoint_address { /* by value: valid after the read section */
  uint8_t addr[16];            /* network order; IPv4 in the first 4 */
  uint16_t port;               /* host order */
  uint8_t family;              /* enum atsk_endpoint_family, or 0: `name` is to be resolved (ExternalName) */
  struct atsk_str name;        /* borrowed from the set: valid while the pick is held */
};

/* Picks from the service's current endpoints; inside a read section.  ATSK_MISS: none is there for this request. */
enum atsk_status atsk_service_choose(struct atsk_service *service, const struct atsk_pick_wish *wish,
                                     struct atsk_pick *pick) ATSK_MUST_CHECK;

/* The pick's choice number `choice` (0..n-1).  While the pick is held; no read section needed. */
void atsk_pick_address(const struct atsk_pick *pick, uint32_t choice, struct atsk_endpoint_address *out);

/* The choice's opaque tag, for a cookie; 0: there is none (affinity.h). */
uint64_t atsk_pick_tag(const struct atsk_pick *pick, uint32_t choice);

/* Moves the in-flight count to `choice`. */
void atsk_pick_advance(struct atsk_pick *pick, uint32_t choice);

/* The attempt at the current choice failed, or succeeded.  True: that ejected its endpoint, or ended its ejection (health.h).  `rules`: the
 * process's, of which the service may say one itself. */
bool atsk_pick_failed(const struct atsk_pick *pick, const struct atsk_health_rules *rules, uint64_t now_ms, uint64_t random);
bool atsk_pick_succeeded(const struct atsk_pick *pick);

/* Gives everything back; the pick is empty then.  Legal on an empty one.  Any thread, no read section needed. */
void atsk_pick_release(struct atsk_pick *pick);

/* --- writer, inside publish.c only --------------------------------------------------------------------------------------- */

struct atsk_retired; /* retire.h */

struct atsk_service *atsk_service_create(uint64_t id); /* NULL: no memory */

/* Takes `set`, and adds the former one to *retired, whose grace period the caller arranges.  Cannot fail. */
void atsk_service_swap(struct atsk_service *service, struct atsk_endpoint_set *set, struct atsk_retired **retired);
void atsk_service_retire(struct atsk_service *service,
                         struct atsk_retired **retired); /* with its set; no table leads to it any more */
void atsk_service_destroy(struct atsk_service *service); /* of one that no reader ever saw; NULL is legal */
uint64_t atsk_service_id(const struct atsk_service *service);

/* What the access log calls it, "name:port": given once by the writer, and never changed (a second time is ATSK_OK and does nothing); empty
 * until then.  Copies; the reader borrows, inside a read section.  ATSK_E_NOMEM. */
enum atsk_status atsk_service_label_set(struct atsk_service *service, struct atsk_str label) ATSK_MUST_CHECK;
struct atsk_str atsk_service_label(const struct atsk_service *service);
uint32_t atsk_service_size(const struct atsk_service *service); /* endpoints in the current set */

/* A service's current endpoints, as a commit handed them over.  Borrowed: inside a read section. */
struct atsk_endpoints_view {
  const struct atsk_endpoint_set *set;
  uint32_t n;            /* endpoint records; 0 for an ExternalName */
  struct atsk_str name;  /* of an ExternalName; else absent */
  uint16_t port;         /* the name's, host order */
  uint32_t max_failures; /* that the service says itself (endpoint_set.h); else ATSK_NONE */
};
void atsk_service_view(const struct atsk_service *service, struct atsk_endpoints_view *out);
void atsk_endpoints_record(const struct atsk_endpoints_view *view, uint32_t i, struct atsk_endpoint_record *out); /* i < n */

/* What an endpoint has lived through, for explain and metrics; of an ExternalName, number 0 is the name. */
struct atsk_endpoint_health {
  uint32_t in_flight;
  uint32_t failures_in_row;
  uint32_t failures;         /* ever, round a circle of 2^32 */
  uint64_t ejected_until_ms; /* by its attempts, on the picks' clock; 0 or past: it is not */
  uint64_t probed_until_ms;  /* by an active check, likewise */
  bool is_eligible;          /* for new requests; else it is draining */
};
void atsk_endpoints_health(const struct atsk_endpoints_view *view, uint32_t i, struct atsk_endpoint_health *out);
uint32_t atsk_endpoints_eligible(const struct atsk_endpoints_view *view);

/* How many of the service's eligible endpoints are left out.  Inside a read section, or on the writer's thread. */
uint32_t atsk_service_ejected(const struct atsk_service *service, uint64_t now_ms);

/* An active check's verdict on an endpoint of the service's current set (health.h); `addr`: 16 bytes, as in its record.  The writer's
 * thread.  ATSK_MISS: there is no such endpoint. */
enum atsk_status atsk_service_probed(struct atsk_service *service, const uint8_t addr[16], uint8_t family, uint16_t port,
                                     uint64_t now_ms, uint32_t hold_ms) ATSK_MUST_CHECK;

ATSK_END_DECLS
#endif
