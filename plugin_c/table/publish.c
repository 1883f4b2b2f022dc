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

#include "table/publish.h"

#include "table/places.h"
#include "table/records.h"
#include "table/request.h"
#include "base/retire.h"
#include "blob/vhost.h"

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

/* What is staged; from publish on, what waits for the grace period. */
struct commit {
  struct rcu_head rcu;
  struct atsk_places places;
  struct atsk_retired *retired; /* from publish on */
  uint64_t n_retired;           /* how many, roughly, with what `places` carries */
};

/* The writer's own; no reader touches it. */
static struct {
  struct commit *commit; /* NULL: none is open */
  struct atsk_records records;
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
atsk_route_id(const struct atsk_route_state *route)
{
  return atsk_records_route_id(route);
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
  struct commit *commit = calloc(1, sizeof *commit);
  enum atsk_status st   = commit == NULL ? ATSK_E_NOMEM : atsk_places_begin(&commit->places, &writer.records, root_current());
  if (st != ATSK_OK) {
    free(commit);
    commit_close();
    return st;
  }
  writer.commit = commit;
  return ATSK_OK;
}

static void
commit_reclaim(struct rcu_head *rcu)
{
  struct commit *commit = ATSK_OWNER_OF(rcu, struct commit, rcu);
  atomic_fetch_sub_explicit(&n_retired, commit->n_retired, memory_order_relaxed);
  atsk_places_free(&commit->places);
  atsk_reclaim_all(commit->retired);
  free(commit);
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

/* Makes `table` the published one; the former goes to the retired. */
static void
root_swap(const struct atsk_table *table, struct atsk_retired **retired)
{
  const struct atsk_table *former;
#if ATSK_BREAK_PUBLISH == 1
  former = atomic_exchange_explicit(&published_root, table, memory_order_relaxed);
#else
  /* acq_rel: release makes all of the table visible before the pointer; acquire lets the former be touched.
   * Pairs with: the acquire load in atsk_read_begin(). */
  former = atomic_exchange_explicit(&published_root, table, memory_order_acq_rel);
#endif
  if (former != NULL) {
    atsk_table_retire(former, retired);
  }
}

enum atsk_status
atsk_commit_publish(uint64_t *version)
{
  struct commit *commit = writer.commit;
  if (commit == NULL || atsk_records_has_drop_in_use(&writer.records)) {
    return ATSK_E_STATE;
  }
  /* Endpoints and certificates first: a new virtual host finds them in place. */
  atsk_records_publish(&writer.records, &commit->retired);
  const struct atsk_table *table = atsk_places_finish(&commit->places, root_current());
  *version                       = table->version;
  root_swap(table, &commit->retired);
  commit->n_retired = RETIRED_PER_COMMIT * (1 + atsk_places_settle(&commit->places, &commit->retired));
  atomic_fetch_add_explicit(&n_retired, commit->n_retired, memory_order_relaxed);
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
  struct commit *commit = writer.commit;
  if (commit == NULL) {
    return;
  }
  atsk_places_abort(&commit->places);
  atsk_records_abort(&writer.records);
  free(commit);
  commit_close();
}

bool
atsk_writer_is_committing(void)
{
  return writer.commit != NULL;
}

struct atsk_service *
atsk_writer_service(uint64_t id)
{
  return writer.commit != NULL ? NULL : atsk_records_find(&writer.records, ATSK_RECORD_SERVICE, id);
}

void
atsk_writer_services(void (*each)(struct atsk_service *service, void *argument), void *argument)
{
  if (writer.commit == NULL) {
    atsk_records_services(&writer.records, each, argument);
  }
}

void
atsk_readers_wait(void)
{
  urcu_bp_synchronize_rcu();
  GRACE_AFTER();
}

void
atsk_reclaim_barrier(void)
{
  urcu_bp_barrier();
  GRACE_AFTER();
}

/* --- staging: services and certificates ---------------------------------------------------------------------------------------- */

enum atsk_status
atsk_commit_service(uint64_t id, struct atsk_span records, uint32_t max_failures)
{
  return writer.commit == NULL ? ATSK_E_STATE : atsk_records_service(&writer.records, id, records, max_failures);
}

enum atsk_status
atsk_commit_service_name(uint64_t id, struct atsk_str name, uint16_t port, uint32_t max_failures)
{
  return writer.commit == NULL ? ATSK_E_STATE : atsk_records_service_name(&writer.records, id, name, port, max_failures);
}

enum atsk_status
atsk_commit_service_drop(uint64_t id)
{
  return writer.commit == NULL ? ATSK_E_STATE : atsk_records_drop(&writer.records, ATSK_RECORD_SERVICE, id);
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
  return st == ATSK_OK ? atsk_records_certificate(&writer.records, id, material) : st;
}

enum atsk_status
atsk_commit_certificate_empty(uint64_t id)
{
  return writer.commit == NULL ? ATSK_E_STATE : atsk_records_certificate(&writer.records, id, NULL);
}

enum atsk_status
atsk_commit_certificate_drop(uint64_t id)
{
  return writer.commit == NULL ? ATSK_E_STATE : atsk_records_drop(&writer.records, ATSK_RECORD_CERTIFICATE, id);
}

/* --- staging: virtual hosts and TLS policies ------------------------------------------------------------------------------------ */

/* The place that a caller means, if `host` is as a place of this kind needs it: in the form that lookups use, or empty. */
static enum atsk_status
place_of(uint16_t local_port, enum atsk_vhost_place place, struct atsk_str host, struct atsk_place *out)
{
  if (place == ATSK_PLACE_EXACT || place == ATSK_PLACE_WILDCARD) {
    struct atsk_host normal;
    if (host.len == 0 || atsk_host_normalise(host, &normal) != ATSK_REQUEST_FINE || normal.len != host.len ||
        memcmp(normal.bytes, host.ptr, host.len) != 0) {
      return ATSK_E_HOST;
    }
  } else if (place != ATSK_PLACE_NO_HOST && place != ATSK_PLACE_FALLBACK) {
    return ATSK_E_RANGE;
  } else if (host.len != 0) {
    return ATSK_E_HOST;
  }
  *out = (struct atsk_place){
    .host        = host,
    .kind        = place == ATSK_PLACE_EXACT ? ATSK_HOST_EXACT : ATSK_HOST_WILDCARD,
    .is_fallback = place == ATSK_PLACE_FALLBACK,
    .local_port  = local_port,
  };
  return ATSK_OK;
}

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
  struct atsk_place at;
  enum atsk_status st = place_of(local_port, place, host, &at);
  if (st != ATSK_OK) {
    return st;
  }
  void *copy;
  st = blob_check(&blob, n_services, n_routes, &copy);
  if (st == ATSK_OK) {
    st = atsk_places_vhost(&writer.commit->places, &at, blob, service_ids, n_services, route_ids, n_routes);
  }
  free(copy);
  return st;
}

enum atsk_status
atsk_commit_vhost_drop(uint16_t local_port, enum atsk_vhost_place place, struct atsk_str host)
{
  if (writer.commit == NULL) {
    return ATSK_E_STATE;
  }
  struct atsk_place at;
  enum atsk_status st = place_of(local_port, place, host, &at);
  return st == ATSK_OK ? atsk_places_vhost_drop(&writer.commit->places, &at) : st;
}

enum atsk_status
atsk_commit_tls(uint16_t local_port, enum atsk_vhost_place place, struct atsk_str host, const uint64_t *certificate_ids,
                uint32_t n_certificates)
{
  if (writer.commit == NULL) {
    return ATSK_E_STATE;
  }
  struct atsk_place at;
  enum atsk_status st = place_of(local_port, place, host, &at);
  if (st != ATSK_OK) {
    return st;
  }
  if (place == ATSK_PLACE_NO_HOST || n_certificates == 0) {
    return ATSK_E_RANGE;
  }
  return atsk_places_policy(&writer.commit->places, &at, certificate_ids, n_certificates);
}

enum atsk_status
atsk_commit_tls_drop(uint16_t local_port, enum atsk_vhost_place place, struct atsk_str host)
{
  if (writer.commit == NULL) {
    return ATSK_E_STATE;
  }
  struct atsk_place at;
  enum atsk_status st = place == ATSK_PLACE_NO_HOST ? ATSK_E_RANGE : place_of(local_port, place, host, &at);
  return st == ATSK_OK ? atsk_places_policy_drop(&writer.commit->places, &at) : st;
}

enum atsk_status
atsk_commit_supersede(void)
{
  if (writer.commit == NULL) {
    return ATSK_E_STATE;
  }
  enum atsk_status st = atsk_places_supersede(&writer.commit->places, root_current());
  atsk_records_supersede(&writer.records);
  return st;
}
