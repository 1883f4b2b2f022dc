/* Services, their endpoint sets, and the endpoints' runtime state.  Readers: any thread; writer: publish.c.
 *
 * Three lifetimes.  A set is counted: one hold for being its service's current set, given back a grace period after the swap, and one
 * for every pick.  A state is counted by the sets that have the endpoint.  A service is counted by its sets, and has a hold of its own,
 * given back a grace period after the table that leads to it was replaced. */
#include "endpoints/endpoints.h"

#include "endpoints/endpoint_layout.h"
#include "base/retire.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* --- readers ---------------------------------------------------------------------------------------------------------------- */

enum atsk_status
atsk_service_choose(struct atsk_service *service, const struct atsk_pick_wish *wish, struct atsk_pick *pick)
{
  /* acquire: the set's bytes before the pointer to it.  Pairs with: the exchange in atsk_service_swap(). */
  struct atsk_endpoint_set *set = atomic_load_explicit(&service->set, memory_order_acquire);
  if (set == NULL || set->n == 0 || !atsk_balance_choose(set, wish, pick)) {
    return ATSK_MISS;
  }
  /* relaxed: the read section keeps the service's own hold from being given back, so the count cannot be 0 here, and the hold taken
   * is only ever given back by atsk_endpoint_set_release(), which orders. */
  atomic_fetch_add_explicit(&set->holds, 1, memory_order_relaxed);
  /* relaxed: a figure for balancing; it orders nothing */
  atomic_fetch_add_explicit(&set->endpoints[pick->choices[0]].state->in_flight, 1, memory_order_relaxed);
  pick->set     = set;
  pick->current = 0;
  return ATSK_OK;
}

static struct atsk_endpoint *
choice_at(const struct atsk_pick *pick, uint32_t choice)
{
  assert(pick->set != NULL && choice < pick->n);
  return &pick->set->endpoints[pick->choices[choice]];
}

void
atsk_pick_address(const struct atsk_pick *pick, uint32_t choice, struct atsk_endpoint_address *out)
{
  const struct atsk_endpoint *endpoint = choice_at(pick, choice);
  memcpy(out->addr, endpoint->addr, sizeof out->addr);
  out->port   = endpoint->port;
  out->family = endpoint->family;
  out->name   = (struct atsk_str){NULL, 0};
  if (pick->set->name_len > 0) {
    out->name = (struct atsk_str){atsk_set_name(pick->set), pick->set->name_len};
  }
}

uint64_t
atsk_pick_tag(const struct atsk_pick *pick, uint32_t choice)
{
  assert(pick->set != NULL && choice < pick->n);
  return atsk_set_tags(pick->set)[pick->choices[choice]];
}

void
atsk_pick_advance(struct atsk_pick *pick, uint32_t choice)
{
  struct atsk_endpoint_state *before = choice_at(pick, pick->current)->state;
  struct atsk_endpoint_state *after  = choice_at(pick, choice)->state;
  /* relaxed, both: figures for balancing; they order nothing */
  atomic_fetch_sub_explicit(&before->in_flight, 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&after->in_flight, 1, memory_order_relaxed);
  pick->current = choice;
}

bool
atsk_pick_failed(const struct atsk_pick *pick, const struct atsk_health_rules *rules, uint64_t now_ms, uint64_t random)
{
  struct atsk_health_rules own = *rules;
  if (pick->set->max_failures != ATSK_NONE) {
    own.max_failures = pick->set->max_failures;
  }
  return atsk_health_failed(pick->set->service, choice_at(pick, pick->current)->state, &own, now_ms, random);
}

bool
atsk_pick_succeeded(const struct atsk_pick *pick)
{
  return atsk_health_succeeded(pick->set->service, choice_at(pick, pick->current)->state);
}

void
atsk_pick_release(struct atsk_pick *pick)
{
  struct atsk_endpoint_set *set = pick->set;
  if (set == NULL) {
    return;
  }
  /* relaxed, both: the set's hold, given back next, orders the lives of the state and of the service */
  atomic_fetch_sub_explicit(&choice_at(pick, pick->current)->state->in_flight, 1, memory_order_relaxed);
  if (pick->is_bounded) {
    atomic_fetch_sub_explicit(&set->service->n_bounded, 1, memory_order_relaxed);
  }
  pick->set = NULL;
  atsk_endpoint_set_release(set);
}

/* --- services ------------------------------------------------------------------------------------------------------------------ */

struct atsk_service *
atsk_service_create(uint64_t id)
{
  struct atsk_service *service = calloc(1, sizeof *service);
  if (service != NULL) {
    service->id = id;
    /* relaxed: nobody else has the service yet.  Published by: the root's exchange in atsk_commit_publish(). */
    atomic_store_explicit(&service->set, NULL, memory_order_relaxed);
    atomic_store_explicit(&service->holds, 1, memory_order_relaxed);
  }
  return service;
}

static void
set_reclaim(struct atsk_retired *retired)
{
  atsk_endpoint_set_release(ATSK_OWNER_OF(retired, struct atsk_endpoint_set, retired));
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
   * Pairs with: the acquire loads in atsk_service_choose() and atsk_service_view(). */
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
  struct atsk_endpoint_set *set =
    atsk_service_current(service); /* relaxed is enough: a grace period lies between the last swap and here */
  if (set != NULL) {
    atsk_endpoint_set_release(set);
  }
  atsk_service_release(service);
}

uint64_t
atsk_service_id(const struct atsk_service *service)
{
  return service->id;
}

enum atsk_status
atsk_service_label_set(struct atsk_service *service, struct atsk_str label)
{
  /* relaxed: the writer alone stores it. */
  if (atomic_load_explicit(&service->label, memory_order_relaxed) != NULL) {
    return ATSK_OK;
  }
  char *copy = malloc(label.len + 1);
  if (copy == NULL) {
    return ATSK_E_NOMEM;
  }
  memcpy(copy, label.ptr, label.len);
  copy[label.len] = '\0';
  /* release: the text before the pointer to it.  Pairs with: the load in atsk_service_label(). */
  atomic_store_explicit(&service->label, copy, memory_order_release);
  return ATSK_OK;
}

struct atsk_str
atsk_service_label(const struct atsk_service *service)
{
  /* acquire: the text before the pointer to it.  Pairs with: the store in atsk_service_label_set(). */
  const char *label = atomic_load_explicit(&((struct atsk_service *)(uintptr_t)service)->label, memory_order_acquire);
  return label == NULL ? (struct atsk_str){NULL, 0} : (struct atsk_str){label, strlen(label)};
}

uint32_t
atsk_service_size(const struct atsk_service *service)
{
  const struct atsk_endpoint_set *set = atsk_service_current(service);
  return set == NULL ? 0 : set->n;
}

void
atsk_service_view(const struct atsk_service *service, struct atsk_endpoints_view *out)
{
  /* acquire: the set's bytes before the pointer to it.  Pairs with: the exchange in atsk_service_swap(). */
  const struct atsk_endpoint_set *set =
    atomic_load_explicit(&((struct atsk_service *)(uintptr_t)service)->set, memory_order_acquire);
  *out = (struct atsk_endpoints_view){.set = set, .max_failures = set == NULL ? ATSK_NONE : set->max_failures};
  if (set != NULL && set->name_len > 0) {
    out->name = (struct atsk_str){atsk_set_name(set), set->name_len};
    out->port = set->endpoints[0].port;
  } else if (set != NULL) {
    out->n = set->n;
  }
}

void
atsk_endpoints_record(const struct atsk_endpoints_view *view, uint32_t i, struct atsk_endpoint_record *out)
{
  assert(i < view->n);
  const struct atsk_endpoint *endpoint = &view->set->endpoints[i];
  *out                                 = (struct atsk_endpoint_record){
                                    .port = endpoint->port, .family = endpoint->family, .flags = endpoint->flags, .weight = endpoint->weight};
  memcpy(out->addr, endpoint->addr, sizeof out->addr);
}

void
atsk_endpoints_health(const struct atsk_endpoints_view *view, uint32_t i, struct atsk_endpoint_health *out)
{
  assert(view->set != NULL && i < view->set->n);
  const struct atsk_endpoint_set *set = view->set;
  struct atsk_endpoint_state *state   = set->endpoints[i].state;
  /* relaxed, all: figures to be shown; they order nothing */
  out->in_flight        = atomic_load_explicit(&state->in_flight, memory_order_relaxed);
  out->failures_in_row  = atomic_load_explicit(&state->failures_in_row, memory_order_relaxed);
  out->failures         = atomic_load_explicit(&state->failures, memory_order_relaxed);
  out->ejected_until_ms = atomic_load_explicit(&state->ejected_until_ms, memory_order_relaxed);
  out->probed_until_ms  = atomic_load_explicit(&state->probed_until_ms, memory_order_relaxed);
  out->is_eligible      = (set->endpoints[i].flags & set->eligible) != 0;
}

uint32_t
atsk_endpoints_eligible(const struct atsk_endpoints_view *view)
{
  return view->set == NULL ? 0 : view->set->n_eligible;
}

uint32_t
atsk_service_ejected(const struct atsk_service *service, uint64_t now_ms)
{
  struct atsk_endpoints_view view;
  atsk_service_view(service, &view);
  /* relaxed: a figure; it orders nothing */
  const uint64_t until = atomic_load_explicit(&((struct atsk_service *)(uintptr_t)service)->ejected_until_ms, memory_order_relaxed);
  return view.set == NULL || until <= now_ms ? 0 : atsk_health_count(view.set, now_ms);
}

enum atsk_status
atsk_service_probed(struct atsk_service *service, const uint8_t addr[16], uint8_t family, uint16_t port, uint64_t now_ms,
                    uint32_t hold_ms)
{
  const struct atsk_endpoint_set *set = atsk_service_current(service);
  for (uint32_t i = 0; set != NULL && i < set->n; i++) {
    const struct atsk_endpoint *endpoint = &set->endpoints[i];
    if (endpoint->port == port && endpoint->family == family && memcmp(endpoint->addr, addr, sizeof endpoint->addr) == 0) {
      atsk_health_probed(service, endpoint->state, now_ms, hold_ms);
      return ATSK_OK;
    }
  }
  return ATSK_MISS;
}
