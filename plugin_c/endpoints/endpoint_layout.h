/* What services, their endpoint sets and the endpoints' states are in memory: shared by endpoint_set.c and endpoints.c (their lives),
 * balance.c (who is chosen) and health.c (who is left out).  C11 alone: everybody else sees the names in endpoints.h.
 *
 * A set's bytes: the struct, endpoints[n], tags[n], hashes[n_eligible]; order[n] unless all are eligible; ends[n_eligible] unless all
 * weights are alike; the name of an ExternalName.  One allocation, written before the set is published, and never again but for the two
 * counts in front. */
#ifndef ATSK_ENDPOINT_LAYOUT_H
#define ATSK_ENDPOINT_LAYOUT_H

#include "base/atsk_base.h"
#include "blob/atsk_format.h"
#include "base/retire.h"

#include <stdatomic.h>
#include <stdbool.h>

/* What an endpoint lives through; shared by the sets that have it, so that it survives set changes.  Every figure is relaxed: none
 * orders anything, and a value that is some nanoseconds old costs no more than a choice that was a little less good. */
struct atsk_endpoint_state {
  _Atomic uint32_t n_sets;           /* that have it; the last one frees it */
  _Atomic uint32_t in_flight;        /* picks whose current choice this is */
  _Atomic uint32_t failures_in_row;  /* since the last success */
  _Atomic uint32_t n_ejections;      /* that made the present ejection, or the next, longer */
  _Atomic uint32_t last_end_s;       /* when the last ejection was to end; on the picks' clock, in seconds */
  _Atomic uint32_t failures;         /* ever, round a circle of 2^32 */
  _Atomic uint64_t ejected_until_ms; /* by its attempts, on the picks' clock; 0 or past: it is not */
  _Atomic uint64_t probed_until_ms;  /* by an active check, likewise; neither ends the other */
};

struct atsk_endpoint {
  uint8_t addr[16];
  uint16_t port;  /* host order */
  uint8_t family; /* enum atsk_endpoint_family; 0: the set's name */
  uint8_t flags;  /* enum atsk_endpoint_flags */
  uint32_t weight;
  struct atsk_endpoint_state *state;
};

struct atsk_endpoint_set {
  _Atomic uint32_t holds;
  _Atomic uint32_t turn; /* round robin: where the next pick starts; beside `holds`, so that a pick dirties one line of the two */
  uint32_t n;
  uint32_t n_eligible;          /* for new requests: the ready ones, or else the serving ones; the others are draining */
  uint32_t total_weight;        /* of the eligible, in shares (ends[]); 0: all weights are alike, and there is no ends[] */
  uint32_t stride;              /* of weighted turns: prime to total_weight, some 0.618 of it */
  uint32_t name_len;            /* of an ExternalName; else 0 */
  uint32_t eligible;            /* the flag that makes an endpoint so: ATSK_ENDPOINT_READY, or _SERVING where none is ready */
  uint32_t max_failures;        /* of an endpoint in a row, that eject it; 0: never; ATSK_NONE: as the process's rules say */
  struct atsk_service *service; /* counted: it outlives its sets */
  struct atsk_retired retired;
  struct atsk_endpoint endpoints[]; /* sorted by family, address, port */
};

struct atsk_service {
  uint64_t id;
  _Atomic(struct atsk_endpoint_set *) set; /* NULL until the first swap */
  /* Beside `set`, so that a pick reads one line: when the last ejection of an endpoint of this service ends.  Past: there is none, and a
   * pick looks no further.  It may be late (an endpoint was restored or has left), never early. */
  _Atomic uint64_t ejected_until_ms;
  _Atomic uint64_t n_ejected; /* health.c: how many of the current set's eligible are ejected, and when that was counted */
  _Atomic uint32_t n_bounded; /* picks in flight that were made by hash with bounded load */
  _Atomic uint32_t holds;     /* its sets, and one of its own until it is retired */
  _Atomic(char *) label;      /* "name:port" for the access log, NUL-terminated; NULL until it is given, once and for all */
  struct atsk_retired retired;
};

/* The set that the service has now, for the writer: it stored the pointer itself, so that no order is needed. */
static inline struct atsk_endpoint_set *
atsk_service_current(const struct atsk_service *service)
{
  /* relaxed: see above.  C11's loads take no pointer to const; nothing is written. */
  return atomic_load_explicit(&((struct atsk_service *)(uintptr_t)service)->set, memory_order_relaxed);
}

static inline uint64_t *
atsk_set_tags(const struct atsk_endpoint_set *set)
{
  return (uint64_t *)(uintptr_t)(set->endpoints + set->n);
}

static inline uint64_t *
atsk_set_hashes(const struct atsk_endpoint_set *set)
{
  return atsk_set_tags(set) + set->n;
}

/* Places in endpoints[]: first those of the eligible, then of the others.  There only if not all are eligible. */
static inline uint32_t *
atsk_set_order(const struct atsk_endpoint_set *set)
{
  return (uint32_t *)(atsk_set_hashes(set) + set->n_eligible);
}

/* Where the shares of each eligible endpoint end, summed up.  There only if total_weight is not 0. */
static inline uint32_t *
atsk_set_ends(const struct atsk_endpoint_set *set)
{
  return atsk_set_order(set) + (set->n_eligible < set->n ? set->n : 0);
}

static inline char *
atsk_set_name(const struct atsk_endpoint_set *set)
{
  return (char *)(atsk_set_ends(set) + (set->total_weight > 0 ? set->n_eligible : 0));
}

/* The place of an eligible endpoint in endpoints[]. */
static inline uint32_t
atsk_set_place(const struct atsk_endpoint_set *set, uint32_t eligible)
{
  return set->n_eligible == set->n ? eligible : atsk_set_order(set)[eligible];
}

#endif
