/* See places.h. */
#include "table/places.h"

#include "table/certificates.h"
#include "endpoints/endpoints.h"
#include "table/records.h"
#include "base/retire.h"
#include "blob/vhost.h"

#include <stdlib.h>
#include <string.h>

/* A virtual host or a TLS policy: what stands at a place.  First member of both, so that its memory is theirs. */
struct atsk_placed {
  bool is_vhost;
  bool is_published; /* else made by the commit under way */
  struct atsk_placed *next, *prev;
  struct atsk_retired retired;
};

struct vhost {
  struct atsk_placed placed;
  struct atsk_published_vhost published;
  void *pointers[]; /* services, then routes; then the blob's bytes, 8-aligned */
};

struct policy {
  struct atsk_placed placed;
  struct atsk_tls_policy published; /* last: ends in an array */
};

struct atsk_table_made {
  struct atsk_retired retired;
  struct atsk_table published;
  struct atsk_listener listeners[];
};

struct atsk_listener_edit {
  struct atsk_listener listener; /* as it will be, but for hosts while `hosts` is not NULL */
  struct atsk_trie_edit *hosts;  /* NULL: not edited */
  struct atsk_trie_garbage *garbage;
};

static struct atsk_table_made *
table_create(uint32_t n_listeners)
{
  return calloc(1, sizeof(struct atsk_table_made) + n_listeners * sizeof(struct atsk_listener));
}

static void
table_reclaim(struct atsk_retired *retired)
{
  atsk_reclaim_memory(ATSK_OWNER_OF(retired, struct atsk_table_made, retired));
}

/* --- what stands at a place ----------------------------------------------------------------------------------------------------- */

/* Takes or gives back one reference to each thing that `placed` names. */
static void
placed_refs(struct atsk_records *records, struct atsk_placed *placed, bool is_taken)
{
  if (placed->is_vhost) {
    const struct atsk_published_vhost *vhost = &ATSK_OWNER_OF(placed, struct vhost, placed)->published;
    const struct atsk_blob_header *header    = atsk_blob_header_view(vhost->blob);
    for (uint32_t i = 0; i < header->n_services; i++) {
      atsk_records_ref(records, ATSK_RECORD_SERVICE, atsk_service_id(vhost->services[i]), is_taken);
    }
    for (uint32_t i = 0; i < header->n_routes; i++) {
      atsk_records_route_ref(records, vhost->routes[i], is_taken);
    }
    return;
  }
  const struct atsk_tls_policy *policy = &ATSK_OWNER_OF(placed, struct policy, placed)->published;
  for (uint32_t i = 0; i < policy->n_certificates; i++) {
    atsk_records_ref(records, ATSK_RECORD_CERTIFICATE, atsk_certificate_id(policy->certificates[i]), is_taken);
  }
}

static void
placed_reclaim(struct atsk_retired *retired)
{
  atsk_reclaim_memory(ATSK_OWNER_OF(retired, struct atsk_placed, retired));
}

static void
placed_add(struct atsk_placed **list, struct atsk_placed *placed)
{
  placed->prev = NULL;
  placed->next = *list;
  if (*list != NULL) {
    (*list)->prev = placed;
  }
  *list = placed;
}

static void
placed_remove(struct atsk_placed **list, struct atsk_placed *placed)
{
  if (placed->next != NULL) {
    placed->next->prev = placed->prev;
  }
  if (placed->prev != NULL) {
    placed->prev->next = placed->next;
  } else {
    *list = placed->next;
  }
}

/* `placed` stands nowhere any more: freed if this commit made it, else kept for abort, and retired by publish. */
static void
placed_replace(struct atsk_places *places, struct atsk_placed *placed)
{
  placed_refs(places->records, placed, false);
  if (placed->is_published) {
    placed_add(&places->replaced, placed);
  } else {
    placed_remove(&places->made, placed);
    atsk_reclaim_memory(placed);
  }
}

/* A copy of `blob` with its services resolved and its routes made, holding references; on the list of what the commit made.
 * ATSK_E_UNKNOWN, _NOMEM. */
static enum atsk_status
vhost_create(struct atsk_places *places, struct atsk_span blob, const uint64_t *service_ids, uint32_t n_services,
             const uint64_t *route_ids, uint32_t n_routes, struct vhost **out)
{
  for (uint32_t i = 0; i < n_services; i++) {
    if (atsk_records_find(places->records, ATSK_RECORD_SERVICE, service_ids[i]) == NULL) {
      return ATSK_E_UNKNOWN;
    }
  }
  size_t n_pointers   = (size_t)n_services + n_routes;
  struct vhost *vhost = malloc(sizeof *vhost + n_pointers * sizeof(void *) + blob.len);
  if (vhost == NULL) {
    return ATSK_E_NOMEM;
  }
  for (uint32_t i = 0; i < n_routes; i++) {
    struct atsk_route_state *route = atsk_records_route(places->records, route_ids[i]);
    if (route == NULL) {
      while (i-- > 0) {
        atsk_records_route_ref(places->records, vhost->pointers[n_services + i], false);
      }
      free(vhost);
      return ATSK_E_NOMEM;
    }
    atsk_records_route_ref(places->records, route, true);
    vhost->pointers[n_services + i] = route;
  }
  for (uint32_t i = 0; i < n_services; i++) {
    vhost->pointers[i] = atsk_records_find(places->records, ATSK_RECORD_SERVICE, service_ids[i]);
    atsk_records_ref(places->records, ATSK_RECORD_SERVICE, service_ids[i], true);
  }
  uint8_t *bytes = (uint8_t *)(vhost->pointers + n_pointers);
  memcpy(bytes, blob.ptr, blob.len);
  vhost->placed    = (struct atsk_placed){.is_vhost = true};
  vhost->published = (struct atsk_published_vhost){
    .blob     = {bytes, blob.len},
    .services = (struct atsk_service *const *)(void *)vhost->pointers,
    .routes   = (struct atsk_route_state *const *)(void *)(vhost->pointers + n_services),
  };
  placed_add(&places->made, &vhost->placed);
  *out = vhost;
  return ATSK_OK;
}

static enum atsk_status
policy_create(struct atsk_places *places, const uint64_t *certificate_ids, uint32_t n_certificates, struct policy **out)
{
  struct policy *policy = malloc(sizeof *policy + n_certificates * sizeof(struct atsk_certificate *));
  if (policy == NULL) {
    return ATSK_E_NOMEM;
  }
  policy->placed                   = (struct atsk_placed){.is_vhost = false};
  policy->published.n_certificates = n_certificates;
  for (uint32_t i = 0; i < n_certificates; i++) {
    policy->published.certificates[i] = atsk_records_find(places->records, ATSK_RECORD_CERTIFICATE, certificate_ids[i]);
    if (policy->published.certificates[i] == NULL) {
      free(policy);
      return ATSK_E_UNKNOWN;
    }
  }
  placed_refs(places->records, &policy->placed, true);
  placed_add(&places->made, &policy->placed);
  *out = policy;
  return ATSK_OK;
}

/* What was at a place (NULL: nothing) stands nowhere any more. */
static void
vhost_replaced(struct atsk_places *places, struct atsk_published_vhost *vhost)
{
  if (vhost != NULL) {
    placed_replace(places, &ATSK_OWNER_OF(vhost, struct vhost, published)->placed);
  }
}

static void
policy_replaced(struct atsk_places *places, struct atsk_tls_policy *policy)
{
  if (policy != NULL) {
    placed_replace(places, &ATSK_OWNER_OF(policy, struct policy, published)->placed);
  }
}

/* --- listeners and their places --------------------------------------------------------------------------------------------------- */

/* The edit of this port's listener; with `is_wanted` made if need be.  NULL: not there, or no memory. */
static struct atsk_listener_edit *
listener_edit_of(struct atsk_places *places, uint16_t local_port, bool is_wanted)
{
  uint32_t at = 0;
  while (at < places->n_listeners && places->listeners[at].listener.local_port < local_port) {
    at++;
  }
  if (at < places->n_listeners && places->listeners[at].listener.local_port == local_port) {
    return &places->listeners[at];
  }
  if (!is_wanted) {
    return NULL;
  }
  struct atsk_table_made *table        = table_create(places->n_listeners + 1);
  struct atsk_listener_edit *listeners = table == NULL ? NULL : malloc((places->n_listeners + 1) * sizeof *listeners);
  if (listeners == NULL) {
    free(table);
    return NULL;
  }
  if (places->n_listeners > 0) {
    memcpy(listeners, places->listeners, at * sizeof *listeners);
    memcpy(listeners + at + 1, places->listeners + at, (places->n_listeners - at) * sizeof *listeners);
  }
  listeners[at] = (struct atsk_listener_edit){.listener = {.local_port = local_port}};
  free(places->table);
  free(places->listeners);
  places->table     = table;
  places->listeners = listeners;
  places->n_listeners++;
  return &listeners[at];
}

/* The edit of a listener's hosts, begun when first asked for; NULL: no memory. */
static struct atsk_trie_edit *
hosts_edit_of(struct atsk_listener_edit *listener)
{
  if (listener->hosts == NULL) {
    listener->hosts = atsk_trie_edit_begin(listener->listener.hosts);
  }
  return listener->hosts;
}

/* Puts `vhost` at its place; NULL: takes away what stands there.  What stood there is replaced then, and on failure `vhost` is.
 * ATSK_MISS: done, and nothing stood there. */
static enum atsk_status
vhost_put(struct atsk_places *places, const struct atsk_place *at, struct atsk_published_vhost *vhost)
{
  struct atsk_listener_edit *listener = listener_edit_of(places, at->local_port, vhost != NULL);
  struct atsk_published_vhost *former = NULL;
  enum atsk_status st                 = ATSK_OK;
  if (listener == NULL) {
    st = vhost == NULL ? ATSK_OK : ATSK_E_NOMEM;
  } else if (at->host.len > 0) {
    struct atsk_trie_edit *edit = hosts_edit_of(listener);
    st                          = edit == NULL ? ATSK_E_NOMEM : atsk_trie_edit_vhost(edit, at->host, at->kind, vhost, &former);
  } else {
    struct atsk_listener *l            = &listener->listener;
    struct atsk_published_vhost **held = at->is_fallback ? &l->fallback : &l->no_host;
    former                             = *held;
    *held                              = vhost;
  }
  vhost_replaced(places, st == ATSK_OK ? former : vhost);
  return st == ATSK_OK && former == NULL ? ATSK_MISS : st;
}

static enum atsk_status
policy_put(struct atsk_places *places, const struct atsk_place *at, struct atsk_tls_policy *policy)
{
  struct atsk_listener_edit *listener = listener_edit_of(places, at->local_port, policy != NULL);
  struct atsk_tls_policy *former      = NULL;
  enum atsk_status st                 = ATSK_OK;
  if (listener == NULL) {
    st = policy == NULL ? ATSK_OK : ATSK_E_NOMEM;
  } else if (at->host.len > 0) {
    struct atsk_trie_edit *edit = hosts_edit_of(listener);
    st                          = edit == NULL ? ATSK_E_NOMEM : atsk_trie_edit_tls(edit, at->host, at->kind, policy, &former);
  } else {
    former                         = listener->listener.default_tls;
    listener->listener.default_tls = policy;
  }
  policy_replaced(places, st == ATSK_OK ? former : policy);
  return st == ATSK_OK && former == NULL ? ATSK_MISS : st;
}

enum atsk_status
atsk_places_vhost(struct atsk_places *places, const struct atsk_place *at, struct atsk_span blob, const uint64_t *service_ids,
                  uint32_t n_services, const uint64_t *route_ids, uint32_t n_routes)
{
  struct vhost *vhost;
  enum atsk_status st = vhost_create(places, blob, service_ids, n_services, route_ids, n_routes, &vhost);
  if (st == ATSK_OK) {
    st = vhost_put(places, at, &vhost->published);
  }
  return st == ATSK_MISS ? ATSK_OK : st;
}

enum atsk_status
atsk_places_vhost_drop(struct atsk_places *places, const struct atsk_place *at)
{
  return vhost_put(places, at, NULL);
}

enum atsk_status
atsk_places_policy(struct atsk_places *places, const struct atsk_place *at, const uint64_t *certificate_ids,
                   uint32_t n_certificates)
{
  struct policy *policy;
  enum atsk_status st = policy_create(places, certificate_ids, n_certificates, &policy);
  if (st == ATSK_OK) {
    st = policy_put(places, at, &policy->published);
  }
  return st == ATSK_MISS ? ATSK_OK : st;
}

enum atsk_status
atsk_places_policy_drop(struct atsk_places *places, const struct atsk_place *at)
{
  return policy_put(places, at, NULL);
}

/* --- superseding: all that is published and was not put again ------------------------------------------------------------------ */

struct superseding {
  struct atsk_trie_edit *hosts;
  struct atsk_places *places;
  enum atsk_status status;
};

/* One published host: what stands there still is what stood there before. */
static bool
host_supersede(void *context, struct atsk_str host, enum atsk_host_kind kind, const struct atsk_trie_value *published)
{
  struct superseding *superseding    = context;
  struct atsk_trie_value now         = atsk_trie_edit_value(superseding->hosts, host, kind);
  struct atsk_published_vhost *vhost = NULL;
  struct atsk_tls_policy *policy     = NULL;
  enum atsk_status st                = ATSK_OK;
  if (published->vhost != NULL && now.vhost == published->vhost) {
    st = atsk_trie_edit_vhost(superseding->hosts, host, kind, NULL, &vhost);
    vhost_replaced(superseding->places, vhost);
  }
  if (st == ATSK_OK && published->tls != NULL && now.tls == published->tls) {
    st = atsk_trie_edit_tls(superseding->hosts, host, kind, NULL, &policy);
    policy_replaced(superseding->places, policy);
  }
  superseding->status = st;
  return st == ATSK_OK;
}

static enum atsk_status
listener_supersede(struct atsk_places *places, struct atsk_listener_edit *listener, const struct atsk_listener *published)
{
  struct atsk_listener *to_come = &listener->listener;
  if (to_come->no_host == published->no_host) {
    to_come->no_host = NULL;
    vhost_replaced(places, published->no_host);
  }
  if (to_come->fallback == published->fallback) {
    to_come->fallback = NULL;
    vhost_replaced(places, published->fallback);
  }
  if (to_come->default_tls == published->default_tls) {
    to_come->default_tls = NULL;
    policy_replaced(places, published->default_tls);
  }
  struct superseding superseding = {.hosts = hosts_edit_of(listener), .places = places};
  if (superseding.hosts == NULL) {
    return ATSK_E_NOMEM;
  }
  (void)atsk_trie_each(published->hosts, host_supersede, &superseding);
  return superseding.status;
}

/* It walks the published version while it edits the one to come: an edit copies what it changes, so the walk sees no change. */
enum atsk_status
atsk_places_supersede(struct atsk_places *places, const struct atsk_table *current)
{
  enum atsk_status st = ATSK_OK;
  for (uint32_t i = 0; current != NULL && st == ATSK_OK && i < current->n_listeners; i++) {
    struct atsk_listener_edit *listener = listener_edit_of(places, current->listeners[i].local_port, false);
    st = listener_supersede(places, listener, &current->listeners[i]); /* it began with all of them */
  }
  return st;
}

/* --- begin, publish, abort ------------------------------------------------------------------------------------------------------- */

enum atsk_status
atsk_places_begin(struct atsk_places *places, struct atsk_records *records, const struct atsk_table *current)
{
  uint32_t n        = current == NULL ? 0 : current->n_listeners;
  places->table     = table_create(n);
  places->listeners = calloc(n > 0 ? n : 1, sizeof *places->listeners);
  if (places->table == NULL || places->listeners == NULL) {
    free(places->table);
    free(places->listeners);
    return ATSK_E_NOMEM;
  }
  for (uint32_t i = 0; i < n; i++) {
    places->listeners[i].listener = current->listeners[i];
  }
  places->n_listeners = n;
  places->records     = records;
  return ATSK_OK;
}

const struct atsk_table *
atsk_places_finish(struct atsk_places *places, const struct atsk_table *current)
{
  struct atsk_table_made *table = places->table;
  uint32_t n                    = 0;
  for (uint32_t i = 0; i < places->n_listeners; i++) {
    struct atsk_listener_edit *edit = &places->listeners[i];
    if (edit->hosts != NULL) {
      edit->listener.hosts = atsk_trie_edit_finish(edit->hosts, &edit->garbage);
      edit->hosts          = NULL;
    }
    const struct atsk_listener *l = &edit->listener;
    if (l->hosts != NULL || l->no_host != NULL || l->fallback != NULL || l->default_tls != NULL) {
      table->listeners[n++] = *l;
    }
  }
  table->published =
    (struct atsk_table){.version = current == NULL ? 1 : current->version + 1, .n_listeners = n, .listeners = table->listeners};
  places->table = NULL;
  return &table->published;
}

void
atsk_table_retire(const struct atsk_table *table, struct atsk_retired **retired)
{
  struct atsk_table_made *was = ATSK_OWNER_OF(table, struct atsk_table_made, published);
  atsk_retire(retired, &was->retired, table_reclaim);
}

void
atsk_places_free(struct atsk_places *places)
{
  for (uint32_t i = 0; i < places->n_listeners; i++) {
    atsk_trie_edit_drop(places->listeners[i].hosts);
    atsk_trie_garbage_free(places->listeners[i].garbage);
  }
  free(places->table);
  free(places->listeners);
}

uint64_t
atsk_places_settle(struct atsk_places *places, struct atsk_retired **retired)
{
  uint64_t n = 0;
  for (struct atsk_placed *placed = places->made; placed != NULL; placed = placed->next) {
    placed->is_published = true;
  }
  for (struct atsk_placed *placed = places->replaced; placed != NULL; placed = placed->next) {
    atsk_retire(retired, &placed->retired, placed_reclaim);
    n++;
  }
  places->made     = NULL;
  places->replaced = NULL;
  return n;
}

void
atsk_places_abort(struct atsk_places *places)
{
  for (struct atsk_placed *placed = places->made, *next; placed != NULL; placed = next) {
    next = placed->next;
    placed_refs(places->records, placed, false);
    atsk_reclaim_memory(placed);
  }
  for (struct atsk_placed *placed = places->replaced; placed != NULL; placed = placed->next) {
    placed_refs(places->records, placed, true);
  }
  atsk_places_free(places);
}
