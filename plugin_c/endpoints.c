/* Services, their endpoint sets, and the endpoints' runtime state.  Readers: any thread; writer: publish.c.
 *
 * Three lifetimes.  A set is counted: one hold for being its service's current set, given back a grace period after the swap, and one
 * for every pick.  A state is counted by the sets that have the endpoint.  A service is freed a grace period after the table
 * that leads to it was replaced. */
#include "endpoints.h"

#include "retire.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* What an endpoint has lived through; shared by the sets that have it. */
struct endpoint_state {
  _Atomic uint32_t n_sets;
  _Atomic uint32_t in_flight; /* picks whose current choice this is */
  _Atomic uint64_t failures;  /* choices given up for another one */
};

struct endpoint {
  uint8_t addr[16];
  uint16_t port;  /* host order */
  uint8_t family; /* enum atsk_endpoint_family; 0: the set's name */
  struct endpoint_state *state;
};

struct atsk_endpoint_set {
  _Atomic uint32_t holds;
  _Atomic uint32_t turn; /* round robin: where the next pick starts; beside `holds`, so that a pick dirties one line of the two */
  uint32_t n;
  struct atsk_str name; /* of an ExternalName service, in the bytes behind the endpoints; else absent */
  struct atsk_retired retired;
  struct endpoint endpoints[]; /* sorted by family, address, port */
};

struct atsk_service {
  uint64_t id;
  _Atomic(struct atsk_endpoint_set *) set; /* NULL until the first swap */
  struct atsk_retired retired;
};

/* --- holds ------------------------------------------------------------------------------------------------------------------ */

static void
state_release(struct endpoint_state *state)
{
  /* acq_rel: whoever frees has seen every other set's use of the state.  Pairs with: itself, in another thread. */
  if (state != NULL && atomic_fetch_sub_explicit(&state->n_sets, 1, memory_order_acq_rel) == 1) {
    atsk_reclaim_memory(state);
  }
}

static void
set_free(struct atsk_endpoint_set *set)
{
  for (uint32_t i = 0; i < set->n; i++) {
    state_release(set->endpoints[i].state);
  }
  atsk_reclaim_memory(set);
}

static void
set_release(struct atsk_endpoint_set *set)
{
  /* acq_rel: the last holder frees what the others have read.  Pairs with: itself, in another thread. */
  if (atomic_fetch_sub_explicit(&set->holds, 1, memory_order_acq_rel) == 1) {
    set_free(set);
  }
}

/* --- readers ---------------------------------------------------------------------------------------------------------------- */

enum atsk_status
atsk_service_pick(struct atsk_service *service, struct atsk_pick *pick)
{
  /* acquire: the set's bytes before the pointer to it.  Pairs with: the exchange in atsk_service_swap(). */
  struct atsk_endpoint_set *set = atomic_load_explicit(&service->set, memory_order_acquire);
  if (set == NULL || set->n == 0) {
    return ATSK_MISS;
  }
  /* relaxed: the read section keeps the service's own hold from being given back, so the count cannot be 0 here, and the hold taken
   * is only ever given back by set_release(), which orders. */
  atomic_fetch_add_explicit(&set->holds, 1, memory_order_relaxed);
  /* relaxed: only even use matters. */
  uint32_t turn = atomic_fetch_add_explicit(&set->turn, 1, memory_order_relaxed);
  pick->set     = set;
  pick->first   = turn % set->n;
  pick->n       = set->n < ATSK_TRIES_MAX ? set->n : ATSK_TRIES_MAX;
  pick->current = 0;
  atomic_fetch_add_explicit(&set->endpoints[pick->first].state->in_flight, 1, memory_order_relaxed);
  return ATSK_OK;
}

/* Choices follow `first` in the set's order, from the end on from the start; all different, as n is no more than the set has. */
static struct endpoint *
choice_at(const struct atsk_pick *pick, uint32_t choice)
{
  return &pick->set->endpoints[((uint64_t)pick->first + choice) % pick->set->n];
}

void
atsk_pick_address(const struct atsk_pick *pick, uint32_t choice, struct atsk_endpoint_address *out)
{
  assert(pick->set != NULL && choice < pick->n);
  const struct endpoint *endpoint = choice_at(pick, choice);
  memcpy(out->addr, endpoint->addr, sizeof out->addr);
  out->port   = endpoint->port;
  out->family = endpoint->family;
  out->name   = pick->set->name;
}

void
atsk_pick_advance(struct atsk_pick *pick, uint32_t choice)
{
  assert(pick->set != NULL && choice < pick->n);
  struct endpoint_state *before = choice_at(pick, pick->current)->state;
  struct endpoint_state *after  = choice_at(pick, choice)->state;
  /* relaxed, all three: figures for balancing; they order nothing */
  atomic_fetch_add_explicit(&before->failures, 1, memory_order_relaxed);
  atomic_fetch_sub_explicit(&before->in_flight, 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&after->in_flight, 1, memory_order_relaxed);
  pick->current = choice;
}

void
atsk_pick_release(struct atsk_pick *pick)
{
  if (pick->set == NULL) {
    return;
  }
  /* relaxed: the set's hold, given back next, orders the state's life */
  atomic_fetch_sub_explicit(&choice_at(pick, pick->current)->state->in_flight, 1, memory_order_relaxed);
  struct atsk_endpoint_set *set = pick->set;
  pick->set                     = NULL;
  set_release(set);
}

/* --- building a set ---------------------------------------------------------------------------------------------------------- */

static int
endpoint_compare(const struct endpoint *a, const struct endpoint *b)
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

/* The set that the service has now; the writer's own view, so that no order is needed: it stored the pointer itself. */
static struct atsk_endpoint_set *
set_current(const struct atsk_service *service)
{
  return atomic_load_explicit(&service->set, memory_order_relaxed);
}

/* A set to follow `former` (NULL: none) with room for `n` endpoints, none there yet, and `room` bytes behind them. */
static struct atsk_endpoint_set *
set_create(const struct atsk_endpoint_set *former, size_t n, size_t room)
{
  if (n > (SIZE_MAX - sizeof(struct atsk_endpoint_set) - room) / sizeof(struct endpoint)) {
    return NULL;
  }
  struct atsk_endpoint_set *set = malloc(sizeof *set + n * sizeof(struct endpoint) + room);
  if (set != NULL) {
    /* relaxed: nobody else has the set yet.  Published by: atsk_service_swap(). */
    atomic_store_explicit(&set->holds, 1, memory_order_relaxed);
    /* Goes on where the former set is: a service whose endpoints change often would else prefer its first ones. */
    uint32_t turn = former == NULL ? 0 : atomic_load_explicit(&former->turn, memory_order_relaxed);
    atomic_store_explicit(&set->turn, turn, memory_order_relaxed);
    set->n    = 0;
    set->name = (struct atsk_str){NULL, 0};
  }
  return set;
}

static struct endpoint_state *
state_create(void)
{
  struct endpoint_state *state = malloc(sizeof *state);
  if (state != NULL) { /* relaxed: nobody else has the state yet.  Published by: atsk_service_swap(). */
    atomic_store_explicit(&state->n_sets, 1, memory_order_relaxed);
    atomic_store_explicit(&state->in_flight, 0, memory_order_relaxed);
    atomic_store_explicit(&state->failures, 0, memory_order_relaxed);
  }
  return state;
}

/* The state of `endpoint` from `former`, whose cursor *at moves with the sorted calls, or a new one; NULL: no memory. */
static struct endpoint_state *
state_carry(const struct atsk_endpoint_set *former, uint32_t *at, const struct endpoint *endpoint)
{
  int order = -1;
  while (former != NULL && *at < former->n && (order = endpoint_compare(&former->endpoints[*at], endpoint)) < 0) {
    (*at)++;
  }
  if (former == NULL || *at == former->n || order != 0) {
    return state_create();
  }
  struct endpoint_state *state = former->endpoints[*at].state;
  atomic_fetch_add_explicit(&state->n_sets, 1, memory_order_relaxed); /* relaxed: `former` is current, so it is not 0 */
  return state;
}

enum atsk_status
atsk_endpoint_set_create(const struct atsk_service *service, struct atsk_span records, struct atsk_endpoint_set **out)
{
  if (records.len % sizeof(struct atsk_endpoint_record) != 0 || records.len / sizeof(struct atsk_endpoint_record) > UINT32_MAX) {
    return ATSK_E_TRUNCATED;
  }
  uint32_t n                             = (uint32_t)(records.len / sizeof(struct atsk_endpoint_record));
  const struct atsk_endpoint_set *former = set_current(service);
  struct atsk_endpoint_set *set          = set_create(former, n, 0);
  if (set == NULL) {
    return ATSK_E_NOMEM;
  }
  enum atsk_status st = ATSK_OK;
  uint32_t at         = 0;
  for (uint32_t i = 0; i < n; i++) {
    struct atsk_endpoint_record record;
    struct endpoint *endpoint = &set->endpoints[i];
    memcpy(&record, records.ptr + (size_t)i * sizeof record, sizeof record);
    st = record_check(&record);
    if (st != ATSK_OK) {
      break;
    }
    memcpy(endpoint->addr, record.addr, sizeof endpoint->addr);
    endpoint->port   = record.port;
    endpoint->family = record.family; /* weights: all 1 today; the turn gives every endpoint the same share */
    if (i > 0 && endpoint_compare(&set->endpoints[i - 1], endpoint) >= 0) {
      st = ATSK_E_ORDER;
      break;
    }
    endpoint->state = state_carry(former, &at, endpoint);
    if (endpoint->state == NULL) {
      st = ATSK_E_NOMEM;
      break;
    }
    set->n = i + 1;
  }
  if (st != ATSK_OK) {
    atsk_endpoint_set_destroy(set);
    return st;
  }
  *out = set;
  return ATSK_OK;
}

enum atsk_status
atsk_endpoint_set_create_name(const struct atsk_service *service, struct atsk_str name, uint16_t port,
                              struct atsk_endpoint_set **out)
{
  if (name.len == 0 || name.len > ATSK_HOST_MAX || port == 0) {
    return ATSK_E_RANGE;
  }
  const struct atsk_endpoint_set *former = set_current(service);
  struct atsk_endpoint_set *set          = set_create(former, 1, name.len);
  if (set == NULL) {
    return ATSK_E_NOMEM;
  }
  struct endpoint *endpoint = &set->endpoints[0];
  memset(endpoint, 0, sizeof *endpoint);
  endpoint->port  = port;
  bool same       = former != NULL && former->name.len == name.len && memcmp(former->name.ptr, name.ptr, name.len) == 0;
  uint32_t at     = 0;
  endpoint->state = state_carry(same ? former : NULL, &at, endpoint);
  if (endpoint->state == NULL) {
    atsk_endpoint_set_destroy(set);
    return ATSK_E_NOMEM;
  }
  set->n     = 1;
  char *copy = (char *)(set->endpoints + 1);
  memcpy(copy, name.ptr, name.len);
  set->name = (struct atsk_str){copy, name.len};
  *out      = set;
  return ATSK_OK;
}

void
atsk_endpoint_set_destroy(struct atsk_endpoint_set *set)
{
  if (set != NULL) {
    set_release(set);
  }
}

/* --- services ------------------------------------------------------------------------------------------------------------------ */

struct atsk_service *
atsk_service_create(uint64_t id)
{
  struct atsk_service *service = malloc(sizeof *service);
  if (service != NULL) {
    service->id = id;
    /* relaxed: nobody else has the service yet.  Published by: the root's exchange in atsk_commit_publish(). */
    atomic_store_explicit(&service->set, NULL, memory_order_relaxed);
  }
  return service;
}

static void
set_reclaim(struct atsk_retired *retired)
{
  set_release(ATSK_OWNER_OF(retired, struct atsk_endpoint_set, retired));
}

static void
service_reclaim(struct atsk_retired *retired)
{
  atsk_service_destroy(ATSK_OWNER_OF(retired, struct atsk_service, retired));
}

void
atsk_service_swap(struct atsk_service *service, struct atsk_endpoint_set *set, struct atsk_retired **retired)
{
  /* acq_rel: release makes the set's bytes visible before the pointer; acquire lets the former be touched.
   * Pairs with: the acquire load in atsk_service_pick(). */
  struct atsk_endpoint_set *former = atomic_exchange_explicit(&service->set, set, memory_order_acq_rel);
  if (former != NULL) {
    atsk_retire(retired, &former->retired, set_reclaim);
  }
}

void
atsk_service_retire(struct atsk_service *service, struct atsk_retired **retired)
{
  atsk_retire(retired, &service->retired, service_reclaim);
}

void
atsk_service_destroy(struct atsk_service *service)
{
  if (service == NULL) {
    return;
  }
  struct atsk_endpoint_set *set = set_current(service); /* relaxed is enough: a grace period lies between the last swap and here */
  if (set != NULL) {
    set_release(set);
  }
  atsk_reclaim_memory(service);
}

uint64_t
atsk_service_id(const struct atsk_service *service)
{
  return service->id;
}

uint32_t
atsk_service_size(const struct atsk_service *service)
{
  const struct atsk_endpoint_set *set = set_current(service);
  return set == NULL ? 0 : set->n;
}

void
atsk_service_view(const struct atsk_service *service, struct atsk_endpoints_view *out)
{
  /* acquire: the set's bytes before the pointer to it.  Pairs with: the exchange in atsk_service_swap(). */
  const struct atsk_endpoint_set *set =
    atomic_load_explicit(&((struct atsk_service *)(uintptr_t)service)->set, memory_order_acquire);
  *out = (struct atsk_endpoints_view){.set = set};
  if (set != NULL && set->name.len > 0) {
    out->name = set->name;
    out->port = set->endpoints[0].port;
  } else if (set != NULL) {
    out->n = set->n;
  }
}

void
atsk_endpoints_record(const struct atsk_endpoints_view *view, uint32_t i, struct atsk_endpoint_record *out)
{
  assert(i < view->n);
  const struct endpoint *endpoint = &view->set->endpoints[i];
  *out =
    (struct atsk_endpoint_record){.port = endpoint->port, .family = endpoint->family, .flags = ATSK_ENDPOINT_READY, .weight = 1};
  memcpy(out->addr, endpoint->addr, sizeof out->addr);
}
