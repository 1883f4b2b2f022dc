/* Writing the last good state: see state.h; state.c reads it.  Any thread but the controller's; commits go on beside it.
 *
 * The published table is first copied into memory, in one read section, and then written: a slow disk must not hold reclamation up. */
#include "controller/state.h"

#include "table/certificates.h"
#include "endpoints/endpoints.h"
#include "base/id_map.h"
#include "table/publish.h"
#include "base/siphash.h"
#include "blob/vhost.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ROOM_FIRST (4u << 20) /* bytes; doubled as often as needed */
#define ASIDE ".table.state.new"

/* The file to be, in pages of its own: growing moves pages and leaves no copy of a key behind, and giving them back clears them. */
struct sink {
  uint8_t *bytes;
  size_t len, room;
  bool with_certificates;
  uint32_t n_records;
  uint64_t n_routes;
  uint16_t local_port;             /* of the listener being written */
  struct atsk_id_map services;     /* written already */
  struct atsk_id_map certificates; /* likewise */
  enum atsk_status status;         /* the first failure; nothing more is written after it */
};

/* `n` zeroed bytes, a multiple of 8, at the end; valid until the next call.  NULL: failed, and sink->status says how. */
static uint8_t *
sink_add(struct sink *sink, size_t n)
{
  if (sink->status != ATSK_OK) {
    return NULL;
  }
  if (n > ATSK_STATE_MAX - sink->len) {
    sink->status = ATSK_E_RANGE;
    return NULL;
  }
  size_t room = sink->room;
  while (n > room - sink->len) {
    room *= 2;
  }
  if (room != sink->room) {
    void *moved = mremap(sink->bytes, sink->room, room, MREMAP_MAYMOVE);
    if (moved == MAP_FAILED) {
      sink->status = ATSK_E_NOMEM;
      return NULL;
    }
    sink->bytes = moved;
    sink->room  = room;
  }
  uint8_t *added = sink->bytes + sink->len;
  sink->len += n;
  return added;
}

static size_t
filled_up(size_t n)
{
  return (n + 7) & ~(size_t)7;
}

/* A record's header, and `size` bytes (a multiple of 8) that follow it. */
static uint8_t *
record_add(struct sink *sink, enum atsk_state_kind kind, size_t size)
{
  const struct atsk_state_record record = {kind, (uint32_t)size};
  if (size > ATSK_STATE_MAX) {
    sink->status = sink->status == ATSK_OK ? ATSK_E_RANGE : sink->status;
    return NULL;
  }
  uint8_t *added = sink_add(sink, sizeof record + size);
  if (added == NULL) {
    return NULL;
  }
  memcpy(added, &record, sizeof record);
  sink->n_records++;
  return added + sizeof record;
}

/* Copies `n` bytes to *at and moves it behind them, to the next multiple of 8. */
static void
put(uint8_t **at, const void *bytes, size_t n)
{
  if (n > 0) {
    memcpy(*at, bytes, n);
    *at += filled_up(n);
  }
}

/* Whether `id` is met for the first time. */
static bool
is_first(struct sink *sink, struct atsk_id_map *met, uint64_t id)
{
  if (sink->status != ATSK_OK || atsk_id_find(met, id) != NULL) {
    return false;
  }
  if (!atsk_id_add(met, id, met)) {
    sink->status = ATSK_E_NOMEM;
    return false;
  }
  return true;
}

/* --- records ---------------------------------------------------------------------------------------------------------------------- */

static void
service_add(struct sink *sink, const struct atsk_service *service)
{
  uint64_t id = atsk_service_id(service);
  struct atsk_endpoints_view view;
  if (!is_first(sink, &sink->services, id)) {
    return;
  }
  atsk_service_view(service, &view);
  if (view.name.len > 0) {
    const struct atsk_state_name fixed = {
      .id = id, .port = view.port, .name_len = (uint16_t)view.name.len, .max_failures = view.max_failures};
    uint8_t *at = record_add(sink, ATSK_STATE_SERVICE_NAME, sizeof fixed + filled_up(view.name.len));
    if (at != NULL) {
      put(&at, &fixed, sizeof fixed);
      put(&at, view.name.ptr, view.name.len);
    }
    return;
  }
  const struct atsk_state_service fixed = {.id = id, .max_failures = view.max_failures};
  uint8_t *at = record_add(sink, ATSK_STATE_SERVICE, sizeof fixed + view.n * sizeof(struct atsk_endpoint_record));
  if (at == NULL) {
    return;
  }
  put(&at, &fixed, sizeof fixed);
  for (uint32_t i = 0; i < view.n; i++) {
    struct atsk_endpoint_record record;
    atsk_endpoints_record(&view, i, &record);
    put(&at, &record, sizeof record);
  }
}

static void
certificate_add(struct sink *sink, const struct atsk_certificate *certificate)
{
  struct atsk_certificate_der der     = {.chain = NULL};
  struct atsk_state_certificate fixed = {.id = atsk_certificate_id(certificate)};
  if (!is_first(sink, &sink->certificates, fixed.id)) {
    return;
  }
  enum atsk_status st = atsk_certificate_encode(certificate, &der);
  if (st < 0 || der.chain_len > ATSK_STATE_MAX || der.key_len > ATSK_STATE_MAX) {
    sink->status = st < 0 ? st : ATSK_E_RANGE;
  } else {
    fixed.chain_len = (uint32_t)der.chain_len;
    fixed.key_len   = (uint32_t)der.key_len;
    uint8_t *at     = record_add(sink, ATSK_STATE_CERTIFICATE, sizeof fixed + filled_up(der.chain_len) + filled_up(der.key_len));
    if (at != NULL) {
      put(&at, &fixed, sizeof fixed);
      put(&at, der.chain, der.chain_len);
      put(&at, der.key, der.key_len);
    }
  }
  atsk_certificate_der_free(&der);
}

static void
vhost_add(struct sink *sink, enum atsk_vhost_place place, struct atsk_str host, const struct atsk_published_vhost *vhost)
{
  if (vhost == NULL) {
    return;
  }
  const struct atsk_blob_header *header = atsk_blob_header_view(vhost->blob);
  for (uint32_t i = 0; i < header->n_services; i++) {
    service_add(sink, vhost->services[i]);
  }
  const struct atsk_state_vhost fixed = {
    .local_port = sink->local_port,
    .place      = (uint8_t)place,
    .host_len   = (uint8_t)host.len,
    .blob_len   = (uint32_t)vhost->blob.len,
    .n_services = header->n_services,
    .n_routes   = header->n_routes,
  };
  size_t ids  = ((size_t)header->n_services + header->n_routes) * sizeof(uint64_t);
  uint8_t *at = record_add(sink, ATSK_STATE_VHOST, sizeof fixed + filled_up(host.len) + ids + filled_up(vhost->blob.len));
  if (at == NULL) {
    return;
  }
  put(&at, &fixed, sizeof fixed);
  put(&at, host.ptr, host.len);
  for (uint32_t i = 0; i < header->n_services; i++) {
    uint64_t id = atsk_service_id(vhost->services[i]);
    put(&at, &id, sizeof id);
  }
  for (uint32_t i = 0; i < header->n_routes; i++) {
    uint64_t id = ++sink->n_routes; /* what a route has lived through is not kept, so any number of its own does */
    put(&at, &id, sizeof id);
  }
  put(&at, vhost->blob.ptr, vhost->blob.len);
}

static void
policy_add(struct sink *sink, enum atsk_vhost_place place, struct atsk_str host, const struct atsk_tls_policy *policy)
{
  if (policy == NULL || !sink->with_certificates) {
    return;
  }
  for (uint32_t i = 0; i < policy->n_certificates; i++) {
    certificate_add(sink, policy->certificates[i]);
  }
  const struct atsk_state_policy fixed = {
    .local_port     = sink->local_port,
    .place          = (uint8_t)place,
    .host_len       = (uint8_t)host.len,
    .n_certificates = policy->n_certificates,
  };
  uint8_t *at = record_add(sink, ATSK_STATE_POLICY, sizeof fixed + filled_up(host.len) + policy->n_certificates * sizeof(uint64_t));
  if (at == NULL) {
    return;
  }
  put(&at, &fixed, sizeof fixed);
  put(&at, host.ptr, host.len);
  for (uint32_t i = 0; i < policy->n_certificates; i++) {
    uint64_t id = atsk_certificate_id(policy->certificates[i]);
    put(&at, &id, sizeof id);
  }
}

static bool
host_add(void *context, struct atsk_str host, enum atsk_host_kind kind, const struct atsk_trie_value *value)
{
  struct sink *sink           = context;
  enum atsk_vhost_place place = kind == ATSK_HOST_EXACT ? ATSK_PLACE_EXACT : ATSK_PLACE_WILDCARD;
  vhost_add(sink, place, host, value->vhost);
  policy_add(sink, place, host, value->tls);
  return sink->status == ATSK_OK;
}

static void
table_add(struct sink *sink, const struct atsk_table *table)
{
  const struct atsk_str none = {NULL, 0};
  for (uint32_t i = 0; i < table->n_listeners; i++) {
    const struct atsk_listener *listener = &table->listeners[i];
    sink->local_port                     = listener->local_port;
    vhost_add(sink, ATSK_PLACE_NO_HOST, none, listener->no_host);
    vhost_add(sink, ATSK_PLACE_FALLBACK, none, listener->fallback);
    policy_add(sink, ATSK_PLACE_FALLBACK, none, listener->default_tls);
    (void)atsk_trie_each(listener->hosts, host_add, sink);
  }
}

static void
settings_add(struct sink *sink, const struct atsk_settings *settings)
{
  const struct atsk_state_settings fixed = {
    .flags = (settings->cache ? ATSK_STATE_CACHE : 0u) | (settings->reject_encoded_slash ? ATSK_STATE_REJECT_ENCODED_SLASH : 0u) |
             (settings->allow_loopback_names ? ATSK_STATE_ALLOW_LOOPBACK_NAMES : 0u) |
             (settings->log_fields ? ATSK_STATE_LOG_FIELDS : 0u),
    .n_trusted       = (uint32_t)settings->n_trusted,
    .health_path_len = (uint32_t)settings->health_path_len,
    .defaults        = settings->defaults.numbers,
  };
  size_t networks = settings->n_trusted * sizeof(struct atsk_state_network);
  uint8_t *at     = sink_add(sink, sizeof fixed + networks + filled_up(settings->health_path_len));
  if (at == NULL) {
    return;
  }
  put(&at, &fixed, sizeof fixed);
  for (size_t i = 0; i < settings->n_trusted; i++) {
    struct atsk_state_network network = {.family = settings->trusted[i].family, .bits = settings->trusted[i].bits};
    memcpy(network.addr, settings->trusted[i].addr, sizeof network.addr);
    put(&at, &network, sizeof network);
  }
  put(&at, settings->health_path, settings->health_path_len);
}

/* --- the file ---------------------------------------------------------------------------------------------------------------------- */

/* Writes the bytes beside the file, in full and to the disk; NULL, or what failed, errno set. */
static const char *
aside_write(int dir, const uint8_t *bytes, size_t len)
{
  (void)unlinkat(dir, ASIDE, 0); /* of a process that was killed while it wrote */
  int fd = openat(dir, ASIDE, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) {
    return "cannot be made";
  }
  const char *fault = NULL;
  for (size_t done = 0; done < len && fault == NULL;) {
    ssize_t n = write(fd, bytes + done, len - done);
    if (n == 0 || (n < 0 && errno != EINTR)) {
      fault = "cannot be written";
    }
    done += n > 0 ? (size_t)n : 0;
  }
  if (fault == NULL && fsync(fd) != 0) {
    fault = "cannot be brought to the disk";
  }
  int error = errno;
  if (close(fd) != 0 && fault == NULL) {
    error = errno;
    fault = "cannot be written";
  }
  errno = error;
  return fault;
}

static enum atsk_status
file_write(const char *dir, const uint8_t *bytes, size_t len, char *why)
{
  char text[128]    = "";
  const char *name  = "";
  const char *fault = NULL;
  int fd            = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    fault = "cannot be opened";
  } else {
    name  = "/" ASIDE;
    fault = aside_write(fd, bytes, len);
    if (fault == NULL && renameat(fd, ASIDE, fd, ATSK_STATE_NAME) != 0) {
      fault = "cannot take the place of " ATSK_STATE_NAME;
    }
  }
  int error = errno;
  if (fault != NULL) {
    (void)snprintf(why, ATSK_STATE_WHY_MAX, "%.300s%s %s: %s", dir, name, fault, strerror_r(error, text, sizeof text));
  }
  if (fd >= 0) {
    if (fault != NULL) {
      (void)unlinkat(fd, ASIDE, 0);
    } else {
      (void)fsync(fd); /* the rename itself: without it a crash may bring the former file back, which is whole, too */
    }
    (void)close(fd);
  }
  return fault == NULL ? ATSK_OK : ATSK_E_IO;
}

/* Copies the table and completes the header; ATSK_MISS: there is no table. */
static enum atsk_status
table_copy(struct sink *sink, const uint8_t *options, const struct atsk_settings *settings, uint64_t now_s, uint64_t *version)
{
  struct atsk_state_header header = {
    .magic        = ATSK_STATE_MAGIC,
    .version      = ATSK_STATE_VERSION,
    .header_size  = sizeof header,
    .blob_version = ATSK_BLOB_VERSION,
    .written_s    = now_s,
  };
  memcpy(header.options, options, sizeof header.options);
  (void)sink_add(sink, sizeof header);
  settings_add(sink, settings);
  const struct atsk_table *table = atsk_read_begin();
  if (table != NULL) {
    header.table_version = table->version;
    table_add(sink, table);
  }
  atsk_read_end();
  if (header.table_version == 0 || sink->status != ATSK_OK) {
    return sink->status == ATSK_OK ? ATSK_MISS : sink->status;
  }
  header.total_size = sink->len;
  header.n_records  = sink->n_records;
  memcpy(sink->bytes, &header, sizeof header);
  const struct atsk_siphash_key key = {ATSK_STATE_MAGIC, ATSK_STATE_VERSION};
  size_t checked_from               = offsetof(struct atsk_state_header, checksum) + sizeof header.checksum;
  header.checksum                   = atsk_siphash(&key, (const char *)sink->bytes + checked_from, sink->len - checked_from);
  memcpy(sink->bytes, &header, sizeof header);
  *version = header.table_version;
  return ATSK_OK;
}

enum atsk_status
atsk_state_save(const char *dir, const uint8_t options[ATSK_OPTIONS_DIGEST], const struct atsk_settings *settings,
                bool with_certificates, uint64_t now_s, struct atsk_state_saved *out, char *why)
{
  struct sink sink = {.room = ROOM_FIRST, .with_certificates = with_certificates};
  sink.bytes       = mmap(NULL, sink.room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (sink.bytes == MAP_FAILED) {
    (void)snprintf(why, ATSK_STATE_WHY_MAX, "no memory for a copy of the table");
    return ATSK_E_NOMEM;
  }
  (void)madvise(sink.bytes, sink.room, MADV_DONTDUMP); /* there may be keys in it; what mremap adds is like it */
  enum atsk_status st = table_copy(&sink, options, settings, now_s, &out->version);
  if (st == ATSK_E_RANGE) {
    (void)snprintf(why, ATSK_STATE_WHY_MAX, "the table is larger than the %u MiB that a state file may have", ATSK_STATE_MAX >> 20);
  } else if (st < 0) {
    (void)snprintf(why, ATSK_STATE_WHY_MAX, "no memory for a copy of the table");
  }
  if (st == ATSK_OK) {
    out->size_bytes = sink.len;
    st              = file_write(dir, sink.bytes, sink.len, why);
  }
  free(sink.services.entries);
  free(sink.certificates.entries);
  (void)munmap(sink.bytes, sink.room);
  return st;
}
