/* One commit's working state: the table to come, its listeners, and the edits of their host tries.  Writer's thread only; included
 * by publish.c alone. */
#ifndef ATSK_PLACES_H
#define ATSK_PLACES_H

#include "publish.h"
#include "request.h"
#include "retire.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <urcu/urcu-bp.h>

struct table {
  struct atsk_retired retired;
  struct atsk_table published;
  struct atsk_listener listeners[];
};

struct listener_edit {
  struct atsk_listener listener; /* as it will be, but for hosts while `hosts` is not NULL */
  struct atsk_trie_edit *hosts;  /* NULL: not edited */
  struct atsk_trie_garbage *garbage;
};

struct commit {
  struct rcu_head rcu;
  struct table *table;             /* room for n_listeners */
  struct listener_edit *listeners; /* sorted by port */
  uint32_t n_listeners;
  struct atsk_retired *retired; /* from publish on */
  uint64_t n_retired;           /* how many, roughly, with what `listeners` carries */
};

static inline struct table *
table_create(uint32_t n_listeners)
{
  return calloc(1, sizeof(struct table) + n_listeners * sizeof(struct atsk_listener));
}

static inline void
table_reclaim(struct atsk_retired *retired)
{
  atsk_reclaim_memory(ATSK_OWNER_OF(retired, struct table, retired));
}

static inline void
commit_free(struct commit *commit)
{
  if (commit != NULL) {
    free(commit->table);
    free(commit->listeners);
    free(commit);
  }
}

/* A commit whose listeners are those of `current` (NULL: none); NULL: no memory. */
static inline struct commit *
commit_create(const struct atsk_table *current)
{
  uint32_t n            = current == NULL ? 0 : current->n_listeners;
  struct commit *commit = calloc(1, sizeof *commit);
  if (commit == NULL) {
    return NULL;
  }
  commit->table     = table_create(n);
  commit->listeners = calloc(n > 0 ? n : 1, sizeof *commit->listeners);
  if (commit->table == NULL || commit->listeners == NULL) {
    commit_free(commit);
    return NULL;
  }
  for (uint32_t i = 0; i < n; i++) {
    commit->listeners[i].listener = current->listeners[i];
  }
  commit->n_listeners = n;
  return commit;
}

/* The edit of this port's listener; with `is_wanted` made if need be.  NULL: not there, or no memory. */
static inline struct listener_edit *
listener_edit_of(struct commit *commit, uint16_t local_port, bool is_wanted)
{
  uint32_t at = 0;
  while (at < commit->n_listeners && commit->listeners[at].listener.local_port < local_port) {
    at++;
  }
  if (at < commit->n_listeners && commit->listeners[at].listener.local_port == local_port) {
    return &commit->listeners[at];
  }
  if (!is_wanted) {
    return NULL;
  }
  struct table *table             = table_create(commit->n_listeners + 1);
  struct listener_edit *listeners = table == NULL ? NULL : malloc((commit->n_listeners + 1) * sizeof *listeners);
  if (listeners == NULL) {
    free(table);
    return NULL;
  }
  if (commit->n_listeners > 0) {
    memcpy(listeners, commit->listeners, at * sizeof *listeners);
    memcpy(listeners + at + 1, commit->listeners + at, (commit->n_listeners - at) * sizeof *listeners);
  }
  listeners[at] = (struct listener_edit){.listener = {.local_port = local_port}};
  free(commit->table);
  free(commit->listeners);
  commit->table     = table;
  commit->listeners = listeners;
  commit->n_listeners++;
  return &listeners[at];
}

/* The edit of a listener's hosts, begun when first asked for; NULL: no memory. */
static inline struct atsk_trie_edit *
hosts_edit_of(struct listener_edit *listener)
{
  if (listener->hosts == NULL) {
    listener->hosts = atsk_trie_edit_begin(listener->listener.hosts);
  }
  return listener->hosts;
}

/* Whether `host` is as a place of this kind needs it: in the form that lookups use, or empty. */
static inline enum atsk_status
place_check(enum atsk_vhost_place place, struct atsk_str host)
{
  if (place == ATSK_PLACE_NO_HOST || place == ATSK_PLACE_FALLBACK) {
    return host.len == 0 ? ATSK_OK : ATSK_E_HOST;
  }
  if (place != ATSK_PLACE_EXACT && place != ATSK_PLACE_WILDCARD) {
    return ATSK_E_RANGE;
  }
  struct atsk_host normal;
  if (atsk_host_normalise(host, &normal) != ATSK_REQUEST_FINE || normal.len != host.len ||
      memcmp(normal.bytes, host.ptr, host.len) != 0) {
    return ATSK_E_HOST;
  }
  return ATSK_OK;
}

static inline enum atsk_host_kind
host_kind(enum atsk_vhost_place place)
{
  return place == ATSK_PLACE_EXACT ? ATSK_HOST_EXACT : ATSK_HOST_WILDCARD;
}

/* Puts `vhost` (NULL: nothing) at its place; *former is what stood there. */
static inline enum atsk_status
vhost_place(struct listener_edit *listener, enum atsk_vhost_place place, struct atsk_str host, struct atsk_published_vhost *vhost,
            struct atsk_published_vhost **former)
{
  if (place == ATSK_PLACE_EXACT || place == ATSK_PLACE_WILDCARD) {
    struct atsk_trie_edit *edit = hosts_edit_of(listener);
    return edit == NULL ? ATSK_E_NOMEM : atsk_trie_edit_vhost(edit, host, host_kind(place), vhost, former);
  }
  struct atsk_published_vhost **at = place == ATSK_PLACE_NO_HOST ? &listener->listener.no_host : &listener->listener.fallback;
  *former                          = *at;
  *at                              = vhost;
  return ATSK_OK;
}

static inline enum atsk_status
policy_place(struct listener_edit *listener, enum atsk_vhost_place place, struct atsk_str host, struct atsk_tls_policy *policy,
             struct atsk_tls_policy **former)
{
  if (place != ATSK_PLACE_FALLBACK) {
    struct atsk_trie_edit *edit = hosts_edit_of(listener);
    return edit == NULL ? ATSK_E_NOMEM : atsk_trie_edit_tls(edit, host, host_kind(place), policy, former);
  }
  *former                        = listener->listener.default_tls;
  listener->listener.default_tls = policy;
  return ATSK_OK;
}

#endif
