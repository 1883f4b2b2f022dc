/* Dropping all that is published and that the commit under way has not put again.  Writer's thread only; included by publish.c alone.
 *
 * It walks the published version while it edits the one to come: an edit copies what it changes, so the walk sees no change. */
#ifndef ATSK_SUPERSEDE_H
#define ATSK_SUPERSEDE_H

#include "places.h"
#include "publish.h"
#include "records.h"
#include "trie.h"

#include <stdbool.h>

struct superseding {
  struct atsk_trie_edit *hosts;
  struct records *records;
  enum atsk_status status;
};

/* One published host: what stands there still is what stood there before. */
static inline bool
host_supersede(void *context, struct atsk_str host, enum atsk_host_kind kind, const struct atsk_trie_value *published)
{
  struct superseding *superseding    = context;
  struct atsk_trie_value now         = atsk_trie_edit_value(superseding->hosts, host, kind);
  struct atsk_published_vhost *vhost = NULL;
  struct atsk_tls_policy *policy     = NULL;
  enum atsk_status st                = ATSK_OK;
  if (published->vhost != NULL && now.vhost == published->vhost) {
    st = atsk_trie_edit_vhost(superseding->hosts, host, kind, NULL, &vhost);
    placed_replace(superseding->records, placed_of_vhost(vhost));
  }
  if (st == ATSK_OK && published->tls != NULL && now.tls == published->tls) {
    st = atsk_trie_edit_tls(superseding->hosts, host, kind, NULL, &policy);
    placed_replace(superseding->records, placed_of_policy(policy));
  }
  superseding->status = st;
  return st == ATSK_OK;
}

static inline enum atsk_status
listener_supersede(struct listener_edit *listener, struct records *records, const struct atsk_listener *published)
{
  struct atsk_listener *to_come = &listener->listener;
  if (to_come->no_host == published->no_host) {
    to_come->no_host = NULL;
    placed_replace(records, placed_of_vhost(published->no_host));
  }
  if (to_come->fallback == published->fallback) {
    to_come->fallback = NULL;
    placed_replace(records, placed_of_vhost(published->fallback));
  }
  if (to_come->default_tls == published->default_tls) {
    to_come->default_tls = NULL;
    placed_replace(records, placed_of_policy(published->default_tls));
  }
  struct superseding superseding = {.hosts = hosts_edit_of(listener), .records = records};
  if (superseding.hosts == NULL) {
    return ATSK_E_NOMEM;
  }
  (void)atsk_trie_each(published->hosts, host_supersede, &superseding);
  return superseding.status;
}

static inline enum atsk_status
supersede(struct commit *commit, struct records *records, const struct atsk_table *current)
{
  enum atsk_status st = ATSK_OK;
  for (uint32_t i = 0; current != NULL && st == ATSK_OK && i < current->n_listeners; i++) {
    struct listener_edit *listener = listener_edit_of(commit, current->listeners[i].local_port, false);
    st                             = listener_supersede(listener, records, &current->listeners[i]); /* it began with all of them */
  }
  for (int kind = RECORD_SERVICE; kind <= RECORD_CERTIFICATE; kind++) {
    const struct atsk_id_map *map = &records->maps[kind];
    for (size_t i = 0; i < map->capacity; i++) {
      struct record *record = map->entries[i].value;
      if (record != NULL && !record->is_new && !record->has_staged && !record->is_dropped) {
        record->is_dropped = true;
        record_touch(records, record);
      }
    }
  }
  return st;
}

#endif
