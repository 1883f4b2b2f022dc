/* The published root, commits, reclamation.  Readers: any thread, through atsk_read_begin(); everything else: the writer's thread.
 *
 * A commit stages: it makes new objects, edits copies of tries, and notes what each changes.  Until atsk_commit_publish() no reader
 * can see any of it, and atsk_commit_abort() can undo all of it without an allocation.  The commit object itself carries the list
 * of what it replaced through the grace period, so there is one call_rcu() a commit and retiring cannot fail. */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* pthread_sigmask */
#endif
#if !defined(__SANITIZE_ADDRESS__)
#define _LGPL_SOURCE /* liburcu: its small functions inline, which its licence allows to any program; UBSan objects to their alignment */
#endif

#include "publish.h"

#include "places.h"
#include "records.h"
#include "supersede.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <urcu/urcu-bp.h>

/* ATSK_BREAK_PUBLISH makes builds that the torture tests must catch: 1 publishes without order, 2 frees at once; undefined is 0. */

/* What may wait for its grace period before the writer waits too.  Without a bound, a writer that is faster than the reclaiming thread
 * makes the heap grow by all it has published meanwhile; at this one it is some 20 MB of small commits. */
#define RETIRED_MAX 65536u
#define RETIRED_PER_COMMIT 8u /* a table, a few trie nodes and branches */

/* What a grace period orders, told to ThreadSanitizer, which cannot see into Debian's liburcu: all that a reader did before it closed its
 * read section, and all that the writer did before it retired, comes before the reclaim.  A reader that is still inside has told
 * nothing, so memory freed under it is a race that is reported; the torture tests hold both true. */
#if defined(__SANITIZE_THREAD__)
void __tsan_acquire(void *);
void __tsan_release(void *);
static char grace_period;
#define GRACE_BEFORE() __tsan_release(&grace_period)
#define GRACE_AFTER() __tsan_acquire(&grace_period)
#else
#define GRACE_BEFORE() ((void)0)
#define GRACE_AFTER() ((void)0)
#endif

static _Atomic(const struct atsk_table *) published_root;
static _Atomic uint64_t n_retired; /* objects, roughly; relaxed throughout: a figure that orders nothing */
static atomic_bool is_commit_open;

/* The writer's own; no reader touches it. */
static struct {
  struct commit *commit; /* NULL: none is open */
  struct records records;
  struct atsk_certificate_parser *parser; /* NULL until the first certificate */
  bool is_reclaimer_up;
} writer;

/* --- readers --------------------------------------------------------------------------------------------------------------- */

const struct atsk_table *
atsk_read_begin(void)
{
  urcu_bp_read_lock();
  /* acquire: all that the table leads to before the pointer to it.  Pairs with: the exchange in root_swap(). */
  return atomic_load_explicit(&published_root, memory_order_acquire);
}

void
atsk_read_end(void)
{
  GRACE_BEFORE();
  urcu_bp_read_unlock();
}

uint64_t
atsk_table_version(void)
{
  const struct atsk_table *table = atsk_read_begin();
  uint64_t version               = table == NULL ? 0 : table->version;
  atsk_read_end();
  return version;
}

/* --- begin, publish, abort ---------------------------------------------------------------------------------------------------- */

/* Starts liburcu's reclaiming thread with every signal blocked: ATS's handlers are not for it. */
static void
reclaimer_start(void)
{
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  (void)urcu_bp_get_default_call_rcu_data(); /* makes it; aborts the process if a thread cannot be had */
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  writer.is_reclaimer_up = true;
}

/* The root as the writer knows it: it stored it itself, so no order is needed. */
static const struct atsk_table *
root_current(void)
{
  return atomic_load_explicit(&published_root, memory_order_relaxed);
}

static void
commit_close(void)
{
  writer.commit = NULL;
  /* release: the next writer sees all of this one's.  Pairs with: the exchange in atsk_commit_begin(). */
  atomic_store_explicit(&is_commit_open, false, memory_order_release);
}

enum atsk_status
atsk_commit_begin(void)
{
  /* acquire: what the writer before did, should it have been another thread.  Pairs with: the store in commit_close(). */
  if (atomic_exchange_explicit(&is_commit_open, true, memory_order_acquire)) {
    return ATSK_E_STATE;
  }
  if (!writer.is_reclaimer_up) {
    reclaimer_start();
  }
  if (atomic_load_explicit(&n_retired, memory_order_relaxed) > RETIRED_MAX) {
    urcu_bp_barrier();
    GRACE_AFTER();
  }
  writer.commit = commit_create(root_current());
  if (writer.commit == NULL) {
    commit_close();
    return ATSK_E_NOMEM;
  }
  return ATSK_OK;
}

static void
commit_reclaim(struct rcu_head *rcu)
{
  struct commit *commit = ATSK_OWNER_OF(rcu, struct commit, rcu);
  atomic_fetch_sub_explicit(&n_retired, commit->n_retired, memory_order_relaxed);
  for (uint32_t i = 0; i < commit->n_listeners; i++) {
    atsk_trie_garbage_free(commit->listeners[i].garbage);
  }
  atsk_reclaim_all(commit->retired);
  commit_free(commit);
}

#if ATSK_BREAK_PUBLISH != 2
static void
on_grace_period(struct rcu_head *rcu)
{
  GRACE_AFTER();
  commit_reclaim(rcu);
  GRACE_BEFORE(); /* for who waits in urcu_bp_barrier() */
}
#endif

/* Makes the commit's table the published one; the former goes to the retired. */
static void
root_swap(struct table *table)
{
  const struct atsk_table *former;
#if ATSK_BREAK_PUBLISH == 1
  former = atomic_exchange_explicit(&published_root, &table->published, memory_order_relaxed);
#else
  /* acq_rel: release makes all of the table visible before the pointer; acquire lets the former be touched.
   * Pairs with: the acquire load in atsk_read_begin(). */
  former = atomic_exchange_explicit(&published_root, &table->published, memory_order_acq_rel);
#endif
  if (former != NULL) {
    struct table *was = ATSK_OWNER_OF(former, struct table, published);
    atsk_retire(&writer.records.retired, &was->retired, table_reclaim);
  }
}

/* The table to come, from the commit's listeners; one that serves nothing any more is left out. */
static struct table *
table_finish(struct commit *commit)
{
  const struct atsk_table *current = root_current();
  struct table *table              = commit->table;
  uint32_t n                       = 0;
  for (uint32_t i = 0; i < commit->n_listeners; i++) {
    struct listener_edit *edit = &commit->listeners[i];
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
  commit->table = NULL;
  return table;
}

enum atsk_status
atsk_commit_publish(uint64_t *version)
{
  struct commit *commit   = writer.commit;
  struct records *records = &writer.records;
  if (commit == NULL) {
    return ATSK_E_STATE;
  }
  for (const struct record *record = records->touched; record != NULL; record = record->next_touched) {
    if (record->is_dropped && record->n_refs > 0) {
      return ATSK_E_STATE;
    }
  }
  while (records->touched != NULL) { /* endpoints and certificates first: a new virtual host finds them in place */
    struct record *record = records->touched;
    records->touched      = record->next_touched;
    record_publish(records, record);
  }
  struct table *table = table_finish(commit);
  *version            = table->published.version;
  root_swap(table);
  for (struct placed *placed = records->made; placed != NULL; placed = placed->next) {
    placed->is_published = true;
  }
  commit->n_retired = RETIRED_PER_COMMIT;
  for (struct placed *placed = records->replaced; placed != NULL; placed = placed->next) {
    atsk_retire(&records->retired, &placed->retired, placed_reclaim);
    commit->n_retired += RETIRED_PER_COMMIT;
  }
  atomic_fetch_add_explicit(&n_retired, commit->n_retired, memory_order_relaxed);
  records->made     = NULL;
  records->replaced = NULL;
  commit->retired   = records->retired;
  records->retired  = NULL;
  commit_close();
#if ATSK_BREAK_PUBLISH == 2
  commit_reclaim(&commit->rcu);
#else
  GRACE_BEFORE();
  urcu_bp_call_rcu(&commit->rcu, on_grace_period);
#endif
  return ATSK_OK;
}

void
atsk_commit_abort(void)
{
  struct commit *commit   = writer.commit;
  struct records *records = &writer.records;
  if (commit == NULL) {
    return;
  }
  for (uint32_t i = 0; i < commit->n_listeners; i++) {
    atsk_trie_edit_drop(commit->listeners[i].hosts);
  }
  while (records->made != NULL) {
    placed_replace(records, records->made);
  }
  for (struct placed *placed = records->replaced; placed != NULL; placed = placed->next) {
    placed_refs(records, placed, true);
  }
  records->replaced = NULL;
  while (records->touched != NULL) {
    struct record *record = records->touched;
    records->touched      = record->next_touched;
    record_abort(records, record);
  }
  commit_free(commit);
  commit_close();
}

void
atsk_reclaim_barrier(void)
{
  urcu_bp_barrier();
  GRACE_AFTER();
}

/* --- staging: services and certificates ---------------------------------------------------------------------------------------- */

static enum atsk_status
service_stage(uint64_t id, struct atsk_span records, struct atsk_str name, uint16_t port, bool is_name)
{
  if (writer.commit == NULL) {
    return ATSK_E_STATE;
  }
  struct record *record = record_wanted(&writer.records, RECORD_SERVICE, id);
  if (record == NULL) {
    return ATSK_E_NOMEM;
  }
  struct atsk_endpoint_set *set;
  enum atsk_status st = is_name ? atsk_endpoint_set_create_name(record->object, name, port, &set)
                                : atsk_endpoint_set_create(record->object, records, &set);
  if (st == ATSK_OK) {
    record_stage(&writer.records, record, set);
  } else {
    record_forget(&writer.records, record);
  }
  return st;
}

enum atsk_status
atsk_commit_service(uint64_t id, struct atsk_span records)
{
  return service_stage(id, records, (struct atsk_str){NULL, 0}, 0, false);
}

enum atsk_status
atsk_commit_service_name(uint64_t id, struct atsk_str name, uint16_t port)
{
  return service_stage(id, (struct atsk_span){NULL, 0}, name, port, true);
}

enum atsk_status
atsk_commit_service_drop(uint64_t id)
{
  return writer.commit == NULL ? ATSK_E_STATE : record_drop(&writer.records, RECORD_SERVICE, id);
}

enum atsk_status
atsk_commit_certificate(uint64_t id, struct atsk_span chain_der, struct atsk_span key_der)
{
  if (writer.commit == NULL) {
    return ATSK_E_STATE;
  }
  if (writer.parser == NULL && (writer.parser = atsk_certificate_parser_create()) == NULL) {
    return ATSK_E_NOMEM;
  }
  struct atsk_certificate_material *material;
  enum atsk_status st = atsk_certificate_material_create(writer.parser, chain_der, key_der, &material);
  if (st != ATSK_OK) {
    return st;
  }
  struct record *record = record_wanted(&writer.records, RECORD_CERTIFICATE, id);
  if (record == NULL) {
    atsk_certificate_material_destroy(material);
    return ATSK_E_NOMEM;
  }
  record_stage(&writer.records, record, material);
  return ATSK_OK;
}

enum atsk_status
atsk_commit_certificate_empty(uint64_t id)
{
  if (writer.commit == NULL) {
    return ATSK_E_STATE;
  }
  struct record *record = record_wanted(&writer.records, RECORD_CERTIFICATE, id);
  if (record == NULL) {
    return ATSK_E_NOMEM;
  }
  record_stage(&writer.records, record, NULL);
  return ATSK_OK;
}

enum atsk_status
atsk_commit_certificate_drop(uint64_t id)
{
  return writer.commit == NULL ? ATSK_E_STATE : record_drop(&writer.records, RECORD_CERTIFICATE, id);
}

/* --- staging: virtual hosts and TLS policies ------------------------------------------------------------------------------------ */

/* A blob's bytes may come at any address; validation and reading want them 8-aligned.  *copy is to be freed. */
static enum atsk_status
blob_check(struct atsk_span *blob, uint32_t n_services, uint32_t n_routes, void **copy)
{
  *copy = NULL;
  if ((uintptr_t)blob->ptr % 8 != 0 && blob->len <= ATSK_BLOB_MAX) {
    *copy = malloc(blob->len);
    if (*copy == NULL) {
      return ATSK_E_NOMEM;
    }
    memcpy(*copy, blob->ptr, blob->len);
    blob->ptr = *copy;
  }
  enum atsk_status st = atsk_blob_validate(*blob);
  if (st != ATSK_OK) {
    return st;
  }
  const struct atsk_blob_header *header = atsk_blob_header_view(*blob);
  return header->n_services == n_services && header->n_routes == n_routes ? ATSK_OK : ATSK_E_RANGE;
}

enum atsk_status
atsk_commit_vhost(uint16_t local_port, enum atsk_vhost_place place, struct atsk_str host, struct atsk_span blob,
                  const uint64_t *service_ids, uint32_t n_services, const uint64_t *route_ids, uint32_t n_routes)
{
  if (writer.commit == NULL) {
    return ATSK_E_STATE;
  }
  void *copy;
  struct vhost *vhost = NULL;
  enum atsk_status st = place_check(place, host);
  if (st != ATSK_OK) {
    return st;
  }
  st = blob_check(&blob, n_services, n_routes, &copy);
  if (st == ATSK_OK) {
    st = vhost_create(&writer.records, blob, service_ids, n_services, route_ids, n_routes, &vhost);
  }
  free(copy);
  if (st != ATSK_OK) {
    return st;
  }
  struct atsk_published_vhost *former = NULL;
  struct listener_edit *listener      = listener_edit_of(writer.commit, local_port, true);
  st = listener == NULL ? ATSK_E_NOMEM : vhost_place(listener, place, host, &vhost->published, &former);
  placed_replace(&writer.records, st == ATSK_OK ? placed_of_vhost(former) : &vhost->placed);
  return st;
}

enum atsk_status
atsk_commit_vhost_drop(uint16_t local_port, enum atsk_vhost_place place, struct atsk_str host)
{
  if (writer.commit == NULL) {
    return ATSK_E_STATE;
  }
  enum atsk_status st                 = place_check(place, host);
  struct atsk_published_vhost *former = NULL;
  struct listener_edit *listener      = st == ATSK_OK ? listener_edit_of(writer.commit, local_port, false) : NULL;
  if (listener != NULL) {
    st = vhost_place(listener, place, host, NULL, &former);
  }
  if (st == ATSK_OK) {
    placed_replace(&writer.records, placed_of_vhost(former));
  }
  return st == ATSK_OK && former == NULL ? ATSK_MISS : st;
}

enum atsk_status
atsk_commit_tls(uint16_t local_port, enum atsk_vhost_place place, struct atsk_str host, const uint64_t *certificate_ids,
                uint32_t n_certificates)
{
  struct records *records = &writer.records;
  if (writer.commit == NULL) {
    return ATSK_E_STATE;
  }
  enum atsk_status st = place_check(place, host);
  if (st != ATSK_OK) {
    return st;
  }
  if (place == ATSK_PLACE_NO_HOST || n_certificates == 0) {
    return ATSK_E_RANGE;
  }
  struct policy *policy = malloc(sizeof *policy + n_certificates * sizeof(struct atsk_certificate *));
  if (policy == NULL) {
    return ATSK_E_NOMEM;
  }
  policy->placed                   = (struct placed){.is_vhost = false};
  policy->published.n_certificates = n_certificates;
  for (uint32_t i = 0; i < n_certificates; i++) {
    struct record *record = record_find(records, RECORD_CERTIFICATE, certificate_ids[i]);
    if (record == NULL) {
      free(policy);
      return ATSK_E_UNKNOWN;
    }
    policy->published.certificates[i] = record->object;
  }
  placed_refs(records, &policy->placed, true);
  placed_add(&records->made, &policy->placed);
  struct atsk_tls_policy *former = NULL;
  struct listener_edit *listener = listener_edit_of(writer.commit, local_port, true);
  st = listener == NULL ? ATSK_E_NOMEM : policy_place(listener, place, host, &policy->published, &former);
  placed_replace(records, st == ATSK_OK ? placed_of_policy(former) : &policy->placed);
  return st;
}

enum atsk_status
atsk_commit_tls_drop(uint16_t local_port, enum atsk_vhost_place place, struct atsk_str host)
{
  if (writer.commit == NULL) {
    return ATSK_E_STATE;
  }
  enum atsk_status st            = place == ATSK_PLACE_NO_HOST ? ATSK_E_RANGE : place_check(place, host);
  struct atsk_tls_policy *former = NULL;
  struct listener_edit *listener = st == ATSK_OK ? listener_edit_of(writer.commit, local_port, false) : NULL;
  if (listener != NULL) {
    st = policy_place(listener, place, host, NULL, &former);
  }
  if (st == ATSK_OK) {
    placed_replace(&writer.records, placed_of_policy(former));
  }
  return st == ATSK_OK && former == NULL ? ATSK_MISS : st;
}

enum atsk_status
atsk_commit_supersede(void)
{
  return writer.commit == NULL ? ATSK_E_STATE : supersede(writer.commit, &writer.records, root_current());
}
