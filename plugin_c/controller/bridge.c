/* What Python may call (bridge.h): commits, questions to the published table, counters.  controller.c has the rest.  Runs on Python's threads
 * with the GIL released (cffi).  Must not include ts.h or Python.h. */
#include "controller/ats_records.h"
#include "controller/controller.h"
#include "endpoints/endpoints.h"
#include "table/match.h"
#include "table/publish.h"
#include "table/request.h"
#include "controller/state.h"
#include "controller/stats.h"
#include "blob/vhost.h"

#include "controller/bridge.h"

#include <stdbool.h>
#include <string.h>
#include <time.h>

/* --- commits ------------------------------------------------------------------------------------------------------ */

static struct atsk_str
str_of(const char *ptr, size_t len)
{
  struct atsk_str s = {len > 0 ? ptr : NULL, len};
  return s;
}

static struct atsk_span
span_of(const uint8_t *ptr, size_t len)
{
  struct atsk_span s = {len > 0 ? ptr : NULL, len};
  return s;
}

static bool
place_is_known(int place)
{
  return place >= ATSK_PLACE_EXACT && place <= ATSK_PLACE_FALLBACK;
}

int
atsk_py_commit_begin(void)
{
  return atsk_commit_begin();
}

int
atsk_py_commit_service(uint64_t id, const uint8_t *records, size_t records_len, uint32_t max_failures)
{
  return atsk_commit_service(id, span_of(records, records_len), max_failures);
}

int
atsk_py_commit_service_name(uint64_t id, const char *name, size_t name_len, uint16_t port, uint32_t max_failures)
{
  return atsk_commit_service_name(id, str_of(name, name_len), port, max_failures);
}

int
atsk_py_commit_service_drop(uint64_t id)
{
  return atsk_commit_service_drop(id);
}

int
atsk_py_commit_certificate(uint64_t id, const uint8_t *chain, size_t chain_len, const uint8_t *key, size_t key_len)
{
  return atsk_commit_certificate(id, span_of(chain, chain_len), span_of(key, key_len));
}

int
atsk_py_commit_certificate_empty(uint64_t id)
{
  return atsk_commit_certificate_empty(id);
}

int
atsk_py_commit_certificate_drop(uint64_t id)
{
  return atsk_commit_certificate_drop(id);
}

int
atsk_py_commit_vhost(uint16_t local_port, int place, const char *host, size_t host_len, const uint8_t *blob, size_t blob_len,
                     const uint64_t *services, uint32_t n_services, const uint64_t *routes, uint32_t n_routes)
{
  if (!place_is_known(place)) {
    return ATSK_E_RANGE;
  }
  return atsk_commit_vhost(local_port, (enum atsk_vhost_place)place, str_of(host, host_len), span_of(blob, blob_len), services,
                           n_services, routes, n_routes);
}

int
atsk_py_commit_vhost_drop(uint16_t local_port, int place, const char *host, size_t host_len)
{
  if (!place_is_known(place)) {
    return ATSK_E_RANGE;
  }
  return atsk_commit_vhost_drop(local_port, (enum atsk_vhost_place)place, str_of(host, host_len));
}

int
atsk_py_commit_tls(uint16_t local_port, int place, const char *host, size_t host_len, const uint64_t *certificates,
                   uint32_t n_certificates)
{
  if (!place_is_known(place)) {
    return ATSK_E_RANGE;
  }
  return atsk_commit_tls(local_port, (enum atsk_vhost_place)place, str_of(host, host_len), certificates, n_certificates);
}

int
atsk_py_commit_tls_drop(uint16_t local_port, int place, const char *host, size_t host_len)
{
  if (!place_is_known(place)) {
    return ATSK_E_RANGE;
  }
  return atsk_commit_tls_drop(local_port, (enum atsk_vhost_place)place, str_of(host, host_len));
}

int
atsk_py_commit_publish(uint64_t *version)
{
  return atsk_commit_publish(version);
}

void
atsk_py_commit_abort(void)
{
  atsk_commit_abort();
}

int
atsk_py_commit_take_over(void)
{
  return atsk_commit_supersede();
}

/* --- the last good state -------------------------------------------------------------------------------------------- */

int
atsk_py_state_save(const char *dir, int with_certificates, uint64_t now_s, struct atsk_py_saved *out)
{
  uint8_t options[ATSK_OPTIONS_DIGEST];
  struct atsk_settings settings;
  struct atsk_state_saved saved = {0, 0};
  atsk_controller_options(options);
  atsk_settings_copy(&settings);
  memset(out, 0, sizeof *out);
  enum atsk_status st = atsk_state_save(dir, options, &settings, with_certificates != 0, now_s, &saved, out->why);
  out->version        = saved.version;
  out->size_bytes     = saved.size_bytes;
  return st;
}

/* --- the published table ------------------------------------------------------------------------------------------ */

static void
text_copy(char *out, size_t room, struct atsk_str text)
{
  size_t n = text.len < room - 1 ? text.len : room - 1;
  if (n > 0) {
    memcpy(out, text.ptr, n);
  }
  out[n] = '\0';
}

static void
decide_in(const struct atsk_table *table, uint16_t local_port, struct atsk_str host, struct atsk_str path,
          struct atsk_py_decision *out)
{
  struct atsk_match match = atsk_match_request(table, local_port, host, path);
  out->kind               = (int)match.kind;
  out->version            = table->version;
  if (match.kind != ATSK_MATCH_RULE) {
    return;
  }
  struct atsk_span blob = match.vhost->blob;
  out->rule             = (uint32_t)(match.rule - atsk_blob_rule_at(blob, 0));
  text_copy(out->object, sizeof out->object, atsk_blob_str_view(blob, match.rule->object));
  text_copy(out->path, sizeof out->path, atsk_blob_str_view(blob, match.rule->path));
  if (match.rule->n_backends > 0) {
    const struct atsk_blob_backend *backend = atsk_blob_backend_at(blob, match.rule->first_backend);
    out->service_id                         = atsk_service_id(match.vhost->services[backend->service]);
  }
}

/* A request as explain asks for it, normalised.  `path` borrows from `room`. */
struct question {
  struct atsk_host host;
  struct atsk_str path;
  char room[ATSK_PATH_MAX];
};

static enum atsk_request_fault
question_normalise(struct question *q, const char *authority, size_t authority_len, const char *path, size_t path_len)
{
  struct atsk_str asked         = str_of(path, path_len);
  const char *query             = asked.len > 0 ? memchr(asked.ptr, '?', asked.len) : NULL;
  asked.len                     = query != NULL ? (size_t)(query - asked.ptr) : asked.len;
  enum atsk_request_fault fault = ATSK_REQUEST_FINE;
  q->host.len                   = 0;
  if (authority_len > 0) { /* without one: an HTTP/1.0 request, for rules without a host */
    fault = atsk_host_normalise(str_of(authority, authority_len), &q->host);
  }
  return fault == ATSK_REQUEST_FINE ? atsk_path_normalise(asked, q->room, &q->path) : fault;
}

void
atsk_py_decide(uint16_t local_port, const char *authority, size_t authority_len, const char *path, size_t path_len,
               struct atsk_py_decision *out)
{
  struct question q;
  enum atsk_request_fault fault = question_normalise(&q, authority, authority_len, path, path_len);
  memset(out, 0, sizeof *out);
  if (fault != ATSK_REQUEST_FINE) {
    out->kind = 100 + (int)fault;
    return;
  }
  const struct atsk_table *table = atsk_read_begin();
  if (table != NULL) {
    decide_in(table, local_port, str_of(q.host.bytes, q.host.len), q.path, out);
  } else {
    out->kind = ATSK_MATCH_NO_HOST;
  }
  atsk_read_end();
}

/* Milliseconds on the picks' clock (deadlines.c has the same). */
static uint64_t
clock_ms(void)
{
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u + 1u;
}

static void
endpoint_copy(const struct atsk_endpoints_view *view, uint32_t i, struct atsk_py_endpoint *out)
{
  struct atsk_endpoint_health health;
  struct atsk_endpoint_record record = {.port = view->port, .flags = ATSK_ENDPOINT_READY, .weight = 1};
  if (view->n > 0) {
    atsk_endpoints_record(view, i, &record);
  }
  atsk_endpoints_health(view, i, &health);
  memcpy(out->addr, record.addr, sizeof out->addr);
  out->port            = record.port;
  out->family          = record.family;
  out->flags           = record.flags;
  out->weight          = record.weight;
  out->is_eligible     = health.is_eligible;
  out->in_flight       = health.in_flight;
  out->failures_in_row = health.failures_in_row;
  out->failures        = health.failures;
  const uint64_t now   = clock_ms();
  out->ejected_ms      = health.ejected_until_ms > now ? health.ejected_until_ms - now : 0;
  out->probed_ms       = health.probed_until_ms > now ? health.probed_until_ms - now : 0;
}

uint32_t
atsk_py_endpoints(uint16_t local_port, const char *authority, size_t authority_len, const char *path, size_t path_len,
                  struct atsk_py_endpoint *out, uint32_t room)
{
  struct question q;
  uint32_t n = 0;
  if (question_normalise(&q, authority, authority_len, path, path_len) != ATSK_REQUEST_FINE) {
    return 0;
  }
  const struct atsk_table *table = atsk_read_begin();
  struct atsk_match match        = atsk_match_request(table, local_port, str_of(q.host.bytes, q.host.len), q.path);
  const uint32_t n_backends      = match.kind == ATSK_MATCH_RULE ? match.rule->n_backends : 0;
  for (uint32_t b = 0; b < n_backends; b++) {
    const struct atsk_blob_backend *backend = atsk_blob_backend_at(match.vhost->blob, match.rule->first_backend + b);
    const struct atsk_service *service      = match.vhost->services[backend->service];
    struct atsk_endpoints_view view;
    atsk_service_view(service, &view);
    const uint32_t n_here = view.name.len > 0 ? 1 : view.n;
    for (uint32_t i = 0; i < n_here; i++, n++) {
      if (n < room) {
        out[n].service_id = atsk_service_id(service);
        endpoint_copy(&view, i, &out[n]);
      }
    }
  }
  atsk_read_end();
  return n;
}

int
atsk_py_service_label(uint64_t service_id, const char *label, size_t label_len)
{
  enum { LABEL_MAX = 320 };
  if (label_len == 0 || label_len > LABEL_MAX || memchr(label, '\0', label_len) != NULL) {
    return ATSK_E_RANGE;
  }
  if (atsk_writer_is_committing()) {
    return ATSK_E_STATE;
  }
  struct atsk_service *service = atsk_writer_service(service_id);
  return service == NULL ? ATSK_MISS : atsk_service_label_set(service, str_of(label, label_len));
}

int
atsk_py_endpoint_probed(uint64_t service_id, const uint8_t *addr, uint8_t family, uint16_t port, uint32_t hold_ms)
{
  enum { HOLD_MS_MAX = 3600000 };
  if ((family != ATSK_FAMILY_IPV4 && family != ATSK_FAMILY_IPV6) || port == 0 || hold_ms > HOLD_MS_MAX) {
    return ATSK_E_RANGE;
  }
  if (atsk_writer_is_committing()) {
    return ATSK_E_STATE;
  }
  struct atsk_service *service = atsk_writer_service(service_id);
  return service == NULL ? ATSK_MISS : atsk_service_probed(service, addr, family, port, clock_ms(), hold_ms);
}

struct ejected_list {
  struct atsk_py_ejected *out;
  uint32_t n, room;
  uint64_t now_ms;
};

static void
ejected_add(struct atsk_service *service, void *argument)
{
  struct ejected_list *list = argument;
  const uint32_t n_ejected  = atsk_service_ejected(service, list->now_ms);
  if (n_ejected == 0) {
    return;
  }
  if (list->n < list->room) {
    struct atsk_endpoints_view view;
    atsk_service_view(service, &view);
    list->out[list->n] = (struct atsk_py_ejected){
      .service_id = atsk_service_id(service), .n_eligible = atsk_endpoints_eligible(&view), .n_ejected = n_ejected};
  }
  list->n++;
}

uint32_t
atsk_py_ejected(struct atsk_py_ejected *out, uint32_t room)
{
  struct ejected_list list = {.out = out, .n = 0, .room = room, .now_ms = clock_ms()};
  atsk_writer_services(ejected_add, &list);
  return list.n;
}

/* --- counters ----------------------------------------------------------------------------------------------------------- */

uint32_t
atsk_py_counters(void)
{
  return ATSK_N_COUNTERS;
}

uint64_t
atsk_py_counter(uint32_t counter, const char **name, const char **label)
{
  if (counter >= ATSK_N_COUNTERS) {
    *name = *label = "";
    return 0;
  }
  *name  = atsk_counter_name((enum atsk_counter)counter);
  *label = atsk_counter_label((enum atsk_counter)counter);
  return atsk_counter_sum((enum atsk_counter)counter);
}

/* --- Traffic Server's records ------------------------------------------------------------------------------------------- */

const char *
atsk_py_records_unavailable(void)
{
  return atsk_records_unavailable();
}

int
atsk_py_record_read(const char *name, struct atsk_py_record *out)
{
  struct atsk_record found;
  memset(out, 0, sizeof *out);
  enum atsk_status status = atsk_record_read(name, &found);
  if (status != ATSK_OK) {
    return status;
  }
  _Static_assert(sizeof out->expression == sizeof found.expression, "one expression, two names");
  _Static_assert(sizeof out->value == sizeof found.value, "one value, two names");
  out->type        = (int)found.type;
  out->is_dynamic  = found.is_dynamic;
  out->is_writable = found.is_writable;
  out->is_null     = found.is_null;
  out->source      = found.source;
  memcpy(out->expression, found.expression, sizeof out->expression);
  memcpy(out->value, found.value, sizeof out->value);
  return ATSK_OK;
}

int
atsk_py_record_write(const char *name, int type, const char *value, int source)
{
  if (type < ATSK_RECORD_INT || type > ATSK_RECORD_STRING) {
    return ATSK_E_RANGE;
  }
  return atsk_record_write(name, (enum atsk_record_type)type, value, source);
}
