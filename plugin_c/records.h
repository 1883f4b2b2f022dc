/* What the writer remembers: every id that commits have defined, who refers to it, and what the commit under way changes.  Writer's
 * thread only; included by publish.c alone.  Undoing allocates nothing. */
#ifndef ATSK_RECORDS_H
#define ATSK_RECORDS_H

#include "certificates.h"
#include "endpoints.h"
#include "id_map.h"
#include "publish.h"
#include "retire.h"
#include "vhost.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

/* What the writer knows of an id: a service, a certificate or a route. */
enum record_kind { RECORD_SERVICE, RECORD_CERTIFICATE, RECORD_ROUTE };
struct record {
  uint64_t id;
  uint64_t n_refs; /* by virtual hosts or TLS policies, this commit's counted as if it were published */
  enum record_kind kind;
  bool is_new;     /* made by this commit */
  bool is_dropped; /* by this commit */
  bool is_touched; /* on the commit's list */
  bool has_staged;
  void *staged; /* a service's endpoint set, a certificate's material (NULL: none) */
  void *object; /* struct atsk_service or struct atsk_certificate; a route's is the record itself */
  struct record *next_touched;
  struct atsk_retired retired;
};

struct atsk_route_state {
  struct record record;
};

/* A virtual host or a TLS policy: what stands at a place. */
struct placed {
  bool is_vhost;
  bool is_published; /* else made by the commit under way */
  struct placed *next, *prev;
  struct atsk_retired retired;
};

struct vhost {
  struct placed placed;
  struct atsk_published_vhost published;
  void *pointers[]; /* services, then routes; then the blob's bytes, 8-aligned */
};

struct policy {
  struct placed placed;
  struct atsk_tls_policy published; /* last: ends in an array */
};

struct records {
  struct atsk_id_map maps[3]; /* by enum record_kind */
  /* of the commit under way */
  struct record *touched;
  struct placed *made;          /* not published yet */
  struct placed *replaced;      /* published, and not in the table to come */
  struct atsk_retired *retired; /* freed a grace period after the commit */
};

/* --- records ---------------------------------------------------------------------------------------------------------------- */

static inline void
record_touch(struct records *records, struct record *record)
{
  if (!record->is_touched) {
    record->is_touched   = true;
    record->next_touched = records->touched;
    records->touched     = record;
  }
}

/* A new record, in its map and on the commit's list; NULL: no memory. */
static inline struct record *
record_create(struct records *records, enum record_kind kind, uint64_t id)
{
  struct record *record = calloc(1, sizeof *record);
  if (record == NULL) {
    return NULL;
  }
  record->id     = id;
  record->kind   = kind;
  record->is_new = true;
  record->object = kind == RECORD_SERVICE ? (void *)atsk_service_create(id)
                   : kind == RECORD_ROUTE ? (void *)record
                                          : (void *)atsk_certificate_create(id);
  if (record->object == NULL || !atsk_id_add(&records->maps[kind], id, record)) {
    if (kind == RECORD_SERVICE) {
      atsk_service_destroy(record->object);
    } else if (kind == RECORD_CERTIFICATE) {
      atsk_certificate_destroy(record->object);
    }
    free(record);
    return NULL;
  }
  record_touch(records, record);
  return record;
}

static inline void
record_unstage(struct record *record)
{
  if (record->kind == RECORD_SERVICE) {
    atsk_endpoint_set_destroy(record->staged);
  } else if (record->kind == RECORD_CERTIFICATE) {
    atsk_certificate_material_destroy(record->staged);
  }
  record->staged     = NULL;
  record->has_staged = false;
}

/* Takes `staged`, which a later call of the same commit may replace. */
static inline void
record_stage(struct records *records, struct record *record, void *staged)
{
  record_unstage(record);
  record->staged     = staged;
  record->has_staged = true;
  record->is_dropped = false;
  record_touch(records, record);
}

static inline struct record *
record_find(struct records *records, enum record_kind kind, uint64_t id)
{
  struct record *record = atsk_id_find(&records->maps[kind], id);
  return record == NULL || record->is_dropped ? NULL : record;
}

static inline enum atsk_status
record_drop(struct records *records, enum record_kind kind, uint64_t id)
{
  struct record *record = record_find(records, kind, id);
  if (record == NULL) {
    return ATSK_E_UNKNOWN;
  }
  record_unstage(record);
  record->is_dropped = true;
  record_touch(records, record);
  return ATSK_OK;
}

static inline void
route_reclaim(struct atsk_retired *retired)
{
  atsk_reclaim_memory(ATSK_OWNER_OF(retired, struct record, retired));
}

/* Ends a record: its object is destroyed at once if no reader ever saw it, else retired. */
static inline void
record_end(struct records *records, struct record *record)
{
  struct atsk_retired **retired = &records->retired;
  atsk_id_remove(&records->maps[record->kind], record->id);
  if (record->kind == RECORD_ROUTE) {
    if (record->is_new) {
      free(record);
    } else {
      atsk_retire(retired, &record->retired, route_reclaim);
    }
    return;
  }
  if (record->kind == RECORD_SERVICE && record->is_new) {
    atsk_service_destroy(record->object);
  } else if (record->kind == RECORD_SERVICE) {
    atsk_service_retire(record->object, retired);
  } else if (record->is_new) {
    atsk_certificate_destroy(record->object);
  } else {
    atsk_certificate_retire(record->object, retired);
  }
  free(record);
}

/* The record of `id`, made if need be, for something to be staged on; NULL: no memory. */
static inline struct record *
record_wanted(struct records *records, enum record_kind kind, uint64_t id)
{
  struct record *record = atsk_id_find(&records->maps[kind], id);
  return record != NULL ? record : record_create(records, kind, id);
}

/* Undoes record_wanted() when nothing came of it: a record just made has nothing staged, and is the one touched last. */
static inline void
record_forget(struct records *records, struct record *record)
{
  if (record->is_new && !record->has_staged && !record->is_dropped && records->touched == record) {
    records->touched = record->next_touched;
    record_end(records, record);
  }
}

/* Publishes what was staged for a record, or drops it.  Cannot fail. */
static inline void
record_publish(struct records *records, struct record *record)
{
  record->is_touched = false;
  if (record->is_dropped || (record->kind == RECORD_ROUTE && record->n_refs == 0)) {
    record_end(records, record);
    return;
  }
  if (record->has_staged && record->kind == RECORD_SERVICE) {
    atsk_service_swap(record->object, record->staged, &records->retired);
  } else if (record->has_staged) {
    atsk_certificate_swap(record->object, record->staged, &records->retired);
  }
  record->staged     = NULL;
  record->has_staged = false;
  record->is_new     = false;
}

static inline void
record_abort(struct records *records, struct record *record)
{
  record_unstage(record);
  record->is_touched = false;
  record->is_dropped = false;
  if (record->is_new) {
    record_end(records, record);
  }
}

/* --- what stands at a place ------------------------------------------------------------------------------------------------- */

static inline struct vhost *
vhost_of(struct placed *placed)
{
  return ATSK_OWNER_OF(placed, struct vhost, placed);
}

static inline struct policy *
policy_of(struct placed *placed)
{
  return ATSK_OWNER_OF(placed, struct policy, placed);
}

static inline void
record_ref(struct records *records, struct record *record, bool is_taken)
{
  record->n_refs = is_taken ? record->n_refs + 1 : record->n_refs - 1;
  if (record->kind == RECORD_ROUTE) {
    record_touch(records, record); /* a route lives as long as somebody refers to it: publish looks */
  }
}

/* Takes or gives back one reference to each thing that `placed` names. */
static inline void
placed_refs(struct records *records, struct placed *placed, bool is_taken)
{
  if (placed->is_vhost) {
    const struct atsk_published_vhost *vhost = &vhost_of(placed)->published;
    const struct atsk_blob_header *header    = atsk_blob_header_view(vhost->blob);
    for (uint32_t i = 0; i < header->n_services; i++) {
      record_ref(records, atsk_id_find(&records->maps[RECORD_SERVICE], atsk_service_id(vhost->services[i])), is_taken);
    }
    for (uint32_t i = 0; i < header->n_routes; i++) {
      record_ref(records, &vhost->routes[i]->record, is_taken);
    }
    return;
  }
  const struct atsk_tls_policy *policy = &policy_of(placed)->published;
  for (uint32_t i = 0; i < policy->n_certificates; i++) {
    record_ref(records, atsk_id_find(&records->maps[RECORD_CERTIFICATE], atsk_certificate_id(policy->certificates[i])), is_taken);
  }
}

static inline void
placed_free(struct placed *placed)
{
  atsk_reclaim_memory(placed->is_vhost ? (void *)vhost_of(placed) : (void *)policy_of(placed));
}

static inline void
placed_reclaim(struct atsk_retired *retired)
{
  placed_free(ATSK_OWNER_OF(retired, struct placed, retired));
}

static inline void
placed_add(struct placed **list, struct placed *placed)
{
  placed->prev = NULL;
  placed->next = *list;
  if (*list != NULL) {
    (*list)->prev = placed;
  }
  *list = placed;
}

static inline void
placed_remove(struct placed **list, struct placed *placed)
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

/* `placed` (NULL: nothing) stands nowhere any more: freed if this commit made it, else kept for abort, and retired by publish. */
static inline void
placed_replace(struct records *records, struct placed *placed)
{
  if (placed == NULL) {
    return;
  }
  placed_refs(records, placed, false);
  if (placed->is_published) {
    placed_add(&records->replaced, placed);
  } else {
    placed_remove(&records->made, placed);
    placed_free(placed);
  }
}

static inline struct placed *
placed_of_vhost(struct atsk_published_vhost *published)
{
  return published == NULL ? NULL : &ATSK_OWNER_OF(published, struct vhost, published)->placed;
}

static inline struct placed *
placed_of_policy(struct atsk_tls_policy *published)
{
  return published == NULL ? NULL : &ATSK_OWNER_OF(published, struct policy, published)->placed;
}

/* A copy of `blob` with its services resolved and its routes made, holding references; validated before.  ATSK_E_UNKNOWN, _NOMEM. */
static inline enum atsk_status
vhost_create(struct records *records, struct atsk_span blob, const uint64_t *service_ids, uint32_t n_services,
             const uint64_t *route_ids, uint32_t n_routes, struct vhost **out)
{
  for (uint32_t i = 0; i < n_services; i++) {
    if (record_find(records, RECORD_SERVICE, service_ids[i]) == NULL) {
      return ATSK_E_UNKNOWN;
    }
  }
  size_t n_pointers   = (size_t)n_services + n_routes;
  struct vhost *vhost = malloc(sizeof *vhost + n_pointers * sizeof(void *) + blob.len);
  if (vhost == NULL) {
    return ATSK_E_NOMEM;
  }
  for (uint32_t i = 0; i < n_routes; i++) {
    struct record *route = record_wanted(records, RECORD_ROUTE, route_ids[i]);
    if (route == NULL) {
      while (i-- > 0) {
        record_ref(records, vhost->pointers[n_services + i], false);
      }
      free(vhost);
      return ATSK_E_NOMEM;
    }
    record_ref(records, route, true);
    vhost->pointers[n_services + i] = route;
  }
  for (uint32_t i = 0; i < n_services; i++) {
    struct record *service = record_find(records, RECORD_SERVICE, service_ids[i]);
    record_ref(records, service, true);
    vhost->pointers[i] = service->object;
  }
  uint8_t *bytes = (uint8_t *)(vhost->pointers + n_pointers);
  memcpy(bytes, blob.ptr, blob.len);
  vhost->placed    = (struct placed){.is_vhost = true};
  vhost->published = (struct atsk_published_vhost){
    .blob     = {bytes, blob.len},
    .services = (struct atsk_service *const *)(void *)vhost->pointers,
    .routes   = (struct atsk_route_state *const *)(void *)(vhost->pointers + n_services),
  };
  placed_add(&records->made, &vhost->placed);
  *out = vhost;
  return ATSK_OK;
}

#endif
