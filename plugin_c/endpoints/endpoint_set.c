/* See endpoint_set.h.  Records are hostile: they are all checked before anything is built, and their order while it is. */
#include "endpoints/endpoint_set.h"

#include "endpoints/affinity.h"
#include "endpoints/balance.h"
#include "endpoints/endpoint_layout.h"
#include "endpoints/health.h"
#include "base/retire.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* --- holds ------------------------------------------------------------------------------------------------------------------ */

static void
state_release(struct atsk_endpoint_state *state)
{
  /* acq_rel: whoever frees has seen every other set's use of the state.  Pairs with: itself, in another thread. */
  if (state != NULL && atomic_fetch_sub_explicit(&state->n_sets, 1, memory_order_acq_rel) == 1) {
    atsk_reclaim_memory(state);
  }
}

void
atsk_service_release(struct atsk_service *service)
{
  /* acq_rel: whoever frees has seen every set's use of the service.  Pairs with: itself, in another thread. */
  if (atomic_fetch_sub_explicit(&service->holds, 1, memory_order_acq_rel) == 1) {
    free(atomic_load_explicit(&service->label, memory_order_relaxed)); /* relaxed: nobody else has the service any more */
    atsk_reclaim_memory(service);
  }
}

static void
set_free(struct atsk_endpoint_set *set)
{
  for (uint32_t i = 0; i < set->n; i++) {
    state_release(set->endpoints[i].state);
  }
  atsk_service_release(set->service);
  atsk_reclaim_memory(set);
}

void
atsk_endpoint_set_release(struct atsk_endpoint_set *set)
{
  /* acq_rel: the last holder frees what the others have read.  Pairs with: itself, in another thread. */
  if (atomic_fetch_sub_explicit(&set->holds, 1, memory_order_acq_rel) == 1) {
    set_free(set);
  }
}

enum atsk_status
atsk_endpoint_set_eject_after(struct atsk_endpoint_set *set, uint32_t max_failures)
{
  if (max_failures > ATSK_HEALTH_FAILURES_MAX && max_failures != ATSK_NONE) {
    return ATSK_E_RANGE;
  }
  set->max_failures = max_failures;
  return ATSK_OK;
}

void
atsk_endpoint_set_destroy(struct atsk_endpoint_set *set)
{
  if (set != NULL) {
    atsk_endpoint_set_release(set);
  }
}

/* --- building ------------------------------------------------------------------------------------------------------------------- */

static int
endpoint_compare(const struct atsk_endpoint *a, const struct atsk_endpoint *b)
{
  if (a->family != b->family) {
    return a->family < b->family ? -1 : 1;
  }
  int order = memcmp(a->addr, b->addr, sizeof a->addr);
  return order != 0 ? order : (a->port > b->port) - (a->port < b->port);
}

static enum atsk_status
record_check(const struct atsk_endpoint_record *record)
{
  static const uint8_t zero[12] = {0};
  const uint8_t known           = ATSK_ENDPOINT_READY | ATSK_ENDPOINT_SERVING | ATSK_ENDPOINT_TERMINATING;
  if (record->family != ATSK_FAMILY_IPV4 && record->family != ATSK_FAMILY_IPV6) {
    return ATSK_E_RANGE;
  }
  if (record->port == 0 || record->weight == 0) {
    return ATSK_E_RANGE;
  }
  if ((record->flags & ~known) != 0) {
    return ATSK_E_LAYOUT;
  }
  return record->family == ATSK_FAMILY_IPV4 && memcmp(record->addr + 4, zero, sizeof zero) != 0 ? ATSK_E_LAYOUT : ATSK_OK;
}

/* What a set's size depends on, before there is one. */
struct shape {
  uint32_t n;
  uint32_t n_eligible;
  uint8_t eligible;     /* the flag that makes an endpoint eligible: READY, or SERVING where none is ready */
  bool has_weights;     /* those of the eligible differ */
  struct atsk_str name; /* of an ExternalName */
};

/* A set of that shape, which follows the service's current one; endpoints and arrays are to be written.  NULL: no memory. */
static struct atsk_endpoint_set *
set_create(struct atsk_service *service, const struct shape *shape)
{
  const struct atsk_endpoint_set *former = atsk_service_current(service);
  const size_t n = shape->n, n_eligible = shape->n_eligible;
  size_t room = sizeof(struct atsk_endpoint_set) + shape->name.len;
  if (n > (SIZE_MAX / 2 - room) / (sizeof(struct atsk_endpoint) + 24)) {
    return NULL;
  }
  room += n * sizeof(struct atsk_endpoint) + (n + n_eligible) * sizeof(uint64_t);
  room += ((n_eligible < n ? n : 0) + (shape->has_weights ? n_eligible : 0)) * sizeof(uint32_t);
  struct atsk_endpoint_set *set = malloc(room);
  if (set == NULL) {
    return NULL;
  }
  /* relaxed, both: nobody else has the set yet.  Published by: atsk_service_swap(). */
  atomic_store_explicit(&set->holds, 1, memory_order_relaxed);
  /* Goes on where the former set is: a service whose endpoints change often would else prefer its first ones. */
  uint32_t turn = former == NULL ? 0 : atomic_load_explicit(&former->turn, memory_order_relaxed);
  atomic_store_explicit(&set->turn, turn, memory_order_relaxed);
  set->n            = shape->n;
  set->n_eligible   = shape->n_eligible;
  set->total_weight = 0;
  set->stride       = 1;
  set->name_len     = (uint32_t)shape->name.len;
  set->eligible     = shape->eligible;
  set->max_failures = ATSK_NONE;
  set->service      = service;
  /* relaxed: the caller has the service, so the count is not 0.  Given back by: set_free(). */
  atomic_fetch_add_explicit(&service->holds, 1, memory_order_relaxed);
  return set;
}

static struct atsk_endpoint_state *
state_create(void)
{
  struct atsk_endpoint_state *state = calloc(1, sizeof *state);
  if (state != NULL) { /* relaxed: nobody else has the state yet.  Published by: atsk_service_swap(). */
    atomic_store_explicit(&state->n_sets, 1, memory_order_relaxed);
  }
  return state;
}

/* The state of `endpoint` from `former`, whose cursor *at moves with the sorted calls, or a new one; NULL: no memory. */
static struct atsk_endpoint_state *
state_carry(const struct atsk_endpoint_set *former, uint32_t *at, const struct atsk_endpoint *endpoint)
{
  int order = -1;
  while (former != NULL && *at < former->n && (order = endpoint_compare(&former->endpoints[*at], endpoint)) < 0) {
    (*at)++;
  }
  if (former == NULL || *at == former->n || order != 0) {
    return state_create();
  }
  struct atsk_endpoint_state *state = former->endpoints[*at].state;
  atomic_fetch_add_explicit(&state->n_sets, 1, memory_order_relaxed); /* relaxed: `former` is current, so it is not 0 */
  return state;
}

/* Checks every record but for order, and tells the shape of their set. */
static enum atsk_status
records_measure(struct atsk_span records, struct shape *out)
{
  uint32_t n_ready = 0, n_serving = 0, weight[2] = {0, 0};
  bool differs[2] = {false, false}; /* weights of the ready, of the serving */
  if (records.len % sizeof(struct atsk_endpoint_record) != 0 || records.len / sizeof(struct atsk_endpoint_record) > UINT32_MAX) {
    return ATSK_E_TRUNCATED;
  }
  *out = (struct shape){.n = (uint32_t)(records.len / sizeof(struct atsk_endpoint_record))};
  for (uint32_t i = 0; i < out->n; i++) {
    struct atsk_endpoint_record record;
    memcpy(&record, records.ptr + (size_t)i * sizeof record, sizeof record);
    enum atsk_status st = record_check(&record);
    if (st != ATSK_OK) {
      return st;
    }
    const bool is[2] = {(record.flags & ATSK_ENDPOINT_READY) != 0, (record.flags & ATSK_ENDPOINT_SERVING) != 0};
    n_ready += is[0];
    n_serving += is[1];
    for (unsigned k = 0; k < 2; k++) {
      differs[k] |= is[k] && weight[k] != 0 && weight[k] != record.weight;
      weight[k] = is[k] ? record.weight : weight[k];
    }
  }
  out->eligible    = n_ready > 0 ? ATSK_ENDPOINT_READY : ATSK_ENDPOINT_SERVING;
  out->n_eligible  = n_ready > 0 ? n_ready : n_serving;
  out->has_weights = differs[n_ready > 0 ? 0 : 1];
  return ATSK_OK;
}

/* Writes endpoint `i` and its state. */
static enum atsk_status
endpoint_write(struct atsk_endpoint_set *set, uint32_t i, const struct atsk_endpoint_record *record,
               const struct atsk_endpoint_set *former, uint32_t *at)
{
  struct atsk_endpoint *endpoint = &set->endpoints[i];
  memcpy(endpoint->addr, record->addr, sizeof endpoint->addr);
  endpoint->port   = record->port;
  endpoint->family = record->family;
  endpoint->flags  = record->flags;
  endpoint->weight = record->weight;
  if (i > 0 && endpoint_compare(&set->endpoints[i - 1], endpoint) >= 0) {
    return ATSK_E_ORDER;
  }
  endpoint->state = state_carry(former, at, endpoint);
  return endpoint->state == NULL ? ATSK_E_NOMEM : ATSK_OK;
}

static uint64_t
endpoint_hash(const struct atsk_endpoint *endpoint)
{
  char bytes[19];
  bytes[0] = (char)endpoint->family;
  memcpy(bytes + 1, endpoint->addr, sizeof endpoint->addr);
  memcpy(bytes + 17, &endpoint->port, sizeof endpoint->port);
  return atsk_balance_hash(bytes, sizeof bytes);
}

/* Writes what lies behind the endpoints, which are written. */
static void
arrays_write(struct atsk_endpoint_set *set, const struct shape *shape)
{
  uint32_t n_before = 0, n_after = set->n_eligible; /* where the next eligible, the next draining one stands in order[] */
  for (uint32_t i = 0; i < set->n; i++) {
    const struct atsk_endpoint *endpoint = &set->endpoints[i];
    atsk_set_tags(set)[i]                = atsk_affinity_tag(endpoint->addr, endpoint->family, endpoint->port, shape->name);
    if ((endpoint->flags & set->eligible) == 0) {
      atsk_set_order(set)[n_after++] = i;
      continue;
    }
    atsk_set_hashes(set)[n_before] = endpoint_hash(endpoint);
    if (shape->has_weights) {
      atsk_set_ends(set)[n_before] = endpoint->weight;
    }
    if (set->n_eligible < set->n) {
      atsk_set_order(set)[n_before] = i;
    }
    n_before++;
  }
  if (shape->has_weights) {
    set->total_weight = atsk_balance_shares(atsk_set_ends(set), set->n_eligible, atsk_set_ends(set), &set->stride);
  }
}

enum atsk_status
atsk_endpoint_set_create(struct atsk_service *service, struct atsk_span records, struct atsk_endpoint_set **out)
{
  struct shape shape;
  enum atsk_status st = records_measure(records, &shape);
  if (st != ATSK_OK) {
    return st;
  }
  const struct atsk_endpoint_set *former = atsk_service_current(service);
  struct atsk_endpoint_set *set          = set_create(service, &shape);
  if (set == NULL) {
    return ATSK_E_NOMEM;
  }
  uint32_t at = 0;
  for (uint32_t i = 0; i < shape.n; i++) {
    struct atsk_endpoint_record record;
    memcpy(&record, records.ptr + (size_t)i * sizeof record, sizeof record);
    st = endpoint_write(set, i, &record, former, &at);
    if (st != ATSK_OK) {
      set->n = i; /* what is to be given back */
      atsk_endpoint_set_destroy(set);
      return st;
    }
  }
  arrays_write(set, &shape);
  *out = set;
  return ATSK_OK;
}

enum atsk_status
atsk_endpoint_set_create_name(struct atsk_service *service, struct atsk_str name, uint16_t port, struct atsk_endpoint_set **out)
{
  if (name.len == 0 || name.len > ATSK_HOST_MAX || port == 0) {
    return ATSK_E_RANGE;
  }
  const struct shape shape               = {.n = 1, .n_eligible = 1, .eligible = ATSK_ENDPOINT_READY, .name = name};
  const struct atsk_endpoint_set *former = atsk_service_current(service);
  struct atsk_endpoint_set *set          = set_create(service, &shape);
  if (set == NULL) {
    return ATSK_E_NOMEM;
  }
  struct atsk_endpoint *endpoint = &set->endpoints[0];
  const bool same = former != NULL && former->name_len == name.len && memcmp(atsk_set_name(former), name.ptr, name.len) == 0;
  uint32_t at     = 0;
  *endpoint       = (struct atsk_endpoint){.port = port, .flags = ATSK_ENDPOINT_READY, .weight = 1};
  endpoint->state = state_carry(same ? former : NULL, &at, endpoint);
  if (endpoint->state == NULL) {
    set->n = 0;
    atsk_endpoint_set_destroy(set);
    return ATSK_E_NOMEM;
  }
  arrays_write(set, &shape);
  memcpy(atsk_set_name(set), name.ptr, name.len);
  *out = set;
  return ATSK_OK;
}
