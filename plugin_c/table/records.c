/* See records.h.  A record's references count as if the commit under way were published, so that publish knows at once whether something
 * dropped is still in use, and abort counts back. */
#include "table/records.h"

#include "endpoints/endpoints.h"
#include "base/retire.h"

#include <stdlib.h>

/* What the writer knows of an id: a service, a certificate or a route. */
struct atsk_record {
  uint64_t id;
  uint64_t n_refs; /* by virtual hosts or TLS policies, this commit's counted as if it were published */
  enum atsk_record_kind kind;
  bool is_new;     /* made by this commit */
  bool is_dropped; /* by this commit */
  bool is_touched; /* on the commit's list */
  bool has_staged;
  void *staged; /* a service's endpoint set, a certificate's material (NULL: none) */
  void *object; /* struct atsk_service or struct atsk_certificate; a route's is the record itself */
  struct atsk_record *next_touched;
  struct atsk_retired retired;
};

struct atsk_route_state {
  struct atsk_record record;
};

/* --- records ---------------------------------------------------------------------------------------------------------------- */

static void
record_touch(struct atsk_records *records, struct atsk_record *record)
{
  if (!record->is_touched) {
    record->is_touched   = true;
    record->next_touched = records->touched;
    records->touched     = record;
  }
}

/* A new record, in its map and on the commit's list; NULL: no memory. */
static struct atsk_record *
record_create(struct atsk_records *records, enum atsk_record_kind kind, uint64_t id)
{
  struct atsk_record *record = calloc(1, sizeof *record);
  if (record == NULL) {
    return NULL;
  }
  record->id     = id;
  record->kind   = kind;
  record->is_new = true;
  record->object = kind == ATSK_RECORD_SERVICE ? (void *)atsk_service_create(id)
                   : kind == ATSK_RECORD_ROUTE ? (void *)record
                                               : (void *)atsk_certificate_create(id);
  if (record->object == NULL || !atsk_id_add(&records->maps[kind], id, record)) {
    if (kind == ATSK_RECORD_SERVICE) {
      atsk_service_destroy(record->object);
    } else if (kind == ATSK_RECORD_CERTIFICATE) {
      atsk_certificate_destroy(record->object);
    }
    free(record);
    return NULL;
  }
  record_touch(records, record);
  return record;
}

static void
record_unstage(struct atsk_record *record)
{
  if (record->kind == ATSK_RECORD_SERVICE) {
    atsk_endpoint_set_destroy(record->staged);
  } else if (record->kind == ATSK_RECORD_CERTIFICATE) {
    atsk_certificate_material_destroy(record->staged);
  }
  record->staged     = NULL;
  record->has_staged = false;
}

/* Takes `staged`, which a later call of the same commit may replace. */
static void
record_stage(struct atsk_records *records, struct atsk_record *record, void *staged)
{
  record_unstage(record);
  record->staged     = staged;
  record->has_staged = true;
  record->is_dropped = false;
  record_touch(records, record);
}

static struct atsk_record *
record_find(const struct atsk_records *records, enum atsk_record_kind kind, uint64_t id)
{
  struct atsk_record *record = atsk_id_find(&records->maps[kind], id);
  return record == NULL || record->is_dropped ? NULL : record;
}

static void
route_reclaim(struct atsk_retired *retired)
{
  atsk_reclaim_memory(ATSK_OWNER_OF(retired, struct atsk_record, retired));
}

/* Ends a record that no reader ever saw, with its object. */
static void
record_destroy(struct atsk_records *records, struct atsk_record *record)
{
  atsk_id_remove(&records->maps[record->kind], record->id);
  if (record->kind == ATSK_RECORD_SERVICE) {
    atsk_service_destroy(record->object);
  } else if (record->kind == ATSK_RECORD_CERTIFICATE) {
    atsk_certificate_destroy(record->object);
  }
  free(record);
}

/* Ends a record whose object was published. */
static void
record_retire(struct atsk_records *records, struct atsk_record *record, struct atsk_retired **retired)
{
  atsk_id_remove(&records->maps[record->kind], record->id);
  if (record->kind == ATSK_RECORD_ROUTE) { /* is its own object */
    atsk_retire(retired, &record->retired, route_reclaim);
    return;
  }
  if (record->kind == ATSK_RECORD_SERVICE) {
    atsk_service_retire(record->object, retired);
  } else {
    atsk_certificate_retire(record->object, retired);
  }
  free(record);
}

/* The record of `id`, made if need be, for something to be staged on; NULL: no memory. */
static struct atsk_record *
record_wanted(struct atsk_records *records, enum atsk_record_kind kind, uint64_t id)
{
  struct atsk_record *record = atsk_id_find(&records->maps[kind], id);
  return record != NULL ? record : record_create(records, kind, id);
}

/* Undoes record_wanted() when nothing came of it: a record just made has nothing staged, and is the one touched last. */
static void
record_forget(struct atsk_records *records, struct atsk_record *record)
{
  if (record->is_new && !record->has_staged && !record->is_dropped && records->touched == record) {
    records->touched = record->next_touched;
    record_destroy(records, record);
  }
}

/* Publishes what was staged for a record, or drops it.  Cannot fail. */
static void
record_publish(struct atsk_records *records, struct atsk_record *record, struct atsk_retired **retired)
{
  record->is_touched = false;
  if (record->is_dropped || (record->kind == ATSK_RECORD_ROUTE && record->n_refs == 0)) {
    if (record->is_new) {
      record_destroy(records, record);
    } else {
      record_retire(records, record, retired);
    }
    return;
  }
  if (record->has_staged && record->kind == ATSK_RECORD_SERVICE) {
    atsk_service_swap(record->object, record->staged, retired);
  } else if (record->has_staged) {
    atsk_certificate_swap(record->object, record->staged, retired);
  }
  record->staged     = NULL;
  record->has_staged = false;
  record->is_new     = false;
}

static void
record_abort(struct atsk_records *records, struct atsk_record *record)
{
  record_unstage(record);
  record->is_touched = false;
  record->is_dropped = false;
  if (record->is_new) {
    record_destroy(records, record);
  }
}

/* --- staging ---------------------------------------------------------------------------------------------------------------- */

/* Stages the set that was made over a service's record, unless that failed; a set that is refused leaves no new record behind. */
static enum atsk_status
service_stage(struct atsk_records *records, struct atsk_record *record, enum atsk_status made, struct atsk_endpoint_set *set,
              uint32_t max_failures)
{
  enum atsk_status st = made == ATSK_OK ? atsk_endpoint_set_eject_after(set, max_failures) : made;
  if (st == ATSK_OK) {
    record_stage(records, record, set);
  } else {
    atsk_endpoint_set_destroy(set);
    record_forget(records, record);
  }
  return st;
}

enum atsk_status
atsk_records_service(struct atsk_records *records, uint64_t id, struct atsk_span endpoints, uint32_t max_failures)
{
  struct atsk_record *record    = record_wanted(records, ATSK_RECORD_SERVICE, id);
  struct atsk_endpoint_set *set = NULL;
  if (record == NULL) {
    return ATSK_E_NOMEM;
  }
  enum atsk_status made = atsk_endpoint_set_create(record->object, endpoints, &set);
  return service_stage(records, record, made, set, max_failures);
}

enum atsk_status
atsk_records_service_name(struct atsk_records *records, uint64_t id, struct atsk_str name, uint16_t port, uint32_t max_failures)
{
  struct atsk_record *record    = record_wanted(records, ATSK_RECORD_SERVICE, id);
  struct atsk_endpoint_set *set = NULL;
  if (record == NULL) {
    return ATSK_E_NOMEM;
  }
  enum atsk_status made = atsk_endpoint_set_create_name(record->object, name, port, &set);
  return service_stage(records, record, made, set, max_failures);
}

enum atsk_status
atsk_records_certificate(struct atsk_records *records, uint64_t id, struct atsk_certificate_material *material)
{
  struct atsk_record *record = record_wanted(records, ATSK_RECORD_CERTIFICATE, id);
  if (record == NULL) {
    atsk_certificate_material_destroy(material);
    return ATSK_E_NOMEM;
  }
  record_stage(records, record, material);
  return ATSK_OK;
}

enum atsk_status
atsk_records_drop(struct atsk_records *records, enum atsk_record_kind kind, uint64_t id)
{
  struct atsk_record *record = record_find(records, kind, id);
  if (record == NULL) {
    return ATSK_E_UNKNOWN;
  }
  record_unstage(record);
  record->is_dropped = true;
  record_touch(records, record);
  return ATSK_OK;
}

void
atsk_records_supersede(struct atsk_records *records)
{
  for (int kind = ATSK_RECORD_SERVICE; kind <= ATSK_RECORD_CERTIFICATE; kind++) {
    const struct atsk_id_map *map = &records->maps[kind];
    for (size_t i = 0; i < map->capacity; i++) {
      struct atsk_record *record = map->entries[i].value;
      if (record != NULL && !record->is_new && !record->has_staged && !record->is_dropped) {
        record->is_dropped = true;
        record_touch(records, record);
      }
    }
  }
}

void
atsk_records_services(const struct atsk_records *records, void (*each)(struct atsk_service *service, void *argument),
                      void *argument)
{
  const struct atsk_id_map *map = &records->maps[ATSK_RECORD_SERVICE];
  for (size_t i = 0; i < map->capacity; i++) {
    const struct atsk_record *record = map->entries[i].value;
    if (record != NULL) {
      each(record->object, argument);
    }
  }
}

/* --- references --------------------------------------------------------------------------------------------------------------- */

static void
record_ref(struct atsk_records *records, struct atsk_record *record, bool is_taken)
{
  record->n_refs = is_taken ? record->n_refs + 1 : record->n_refs - 1;
  if (record->kind == ATSK_RECORD_ROUTE) {
    record_touch(records, record); /* a route lives as long as somebody refers to it: publish looks */
  }
}

void *
atsk_records_find(const struct atsk_records *records, enum atsk_record_kind kind, uint64_t id)
{
  struct atsk_record *record = record_find(records, kind, id);
  return record == NULL ? NULL : record->object;
}

struct atsk_route_state *
atsk_records_route(struct atsk_records *records, uint64_t id)
{
  struct atsk_record *record = record_wanted(records, ATSK_RECORD_ROUTE, id);
  return record == NULL ? NULL : ATSK_OWNER_OF(record, struct atsk_route_state, record);
}

void
atsk_records_ref(struct atsk_records *records, enum atsk_record_kind kind, uint64_t id, bool is_taken)
{
  record_ref(records, atsk_id_find(&records->maps[kind], id), is_taken);
}

uint64_t
atsk_records_route_id(const struct atsk_route_state *route)
{
  return route->record.id;
}

void
atsk_records_route_ref(struct atsk_records *records, struct atsk_route_state *route, bool is_taken)
{
  record_ref(records, &route->record, is_taken);
}

/* --- publish, abort --------------------------------------------------------------------------------------------------------- */

bool
atsk_records_has_drop_in_use(const struct atsk_records *records)
{
  for (const struct atsk_record *record = records->touched; record != NULL; record = record->next_touched) {
    if (record->is_dropped && record->n_refs > 0) {
      return true;
    }
  }
  return false;
}

void
atsk_records_publish(struct atsk_records *records, struct atsk_retired **retired)
{
  while (records->touched != NULL) {
    struct atsk_record *record = records->touched;
    records->touched           = record->next_touched;
    record_publish(records, record, retired);
  }
}

void
atsk_records_abort(struct atsk_records *records)
{
  while (records->touched != NULL) {
    struct atsk_record *record = records->touched;
    records->touched           = record->next_touched;
    record_abort(records, record);
  }
}
