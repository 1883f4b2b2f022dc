/* Reading the last good state: see state.h; state_save.c writes it.  At plugin load, before there is a controller.  Every byte is hostile:
 * bounds by subtraction and division, blobs through the same validation as Python's, and a single fault gives the whole file up. */
#include "controller/state.h"

#include "table/publish.h"
#include "table/request.h"
#include "base/siphash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHECKED_FROM (offsetof(struct atsk_state_header, checksum) + sizeof(uint64_t)) /* the first byte that the checksum covers */
#define FLAGS_KNOWN \
  ((uint32_t)(ATSK_STATE_CACHE | ATSK_STATE_REJECT_ENCODED_SLASH | ATSK_STATE_ALLOW_LOOPBACK_NAMES | ATSK_STATE_LOG_FIELDS))

/* What is left of the bytes; 8-aligned, as all that is taken from it is. */
struct cursor {
  uint8_t *at;
  size_t left;
};

static void
why_set(char *why, const char *text)
{
  (void)snprintf(why, ATSK_STATE_WHY_MAX, "%s", text);
}

/* The next `n` bytes and what fills them up to a multiple of 8; NULL: they are not there. */
static void *
take(struct cursor *cursor, uint64_t n)
{
  if (n > cursor->left) {
    return NULL;
  }
  size_t whole = ((size_t)n + 7) & ~(size_t)7; /* `left` is far below SIZE_MAX */
  if (whole > cursor->left) {
    return NULL;
  }
  uint8_t *taken = cursor->at;
  cursor->at += whole;
  cursor->left -= whole;
  return taken;
}

/* The next `n` ids, each marked as loaded in place; NULL: they are not there, or one is out of range. */
static uint64_t *
ids_take(struct cursor *cursor, uint32_t n)
{
  uint64_t *ids = take(cursor, (uint64_t)n * sizeof *ids);
  for (uint32_t i = 0; ids != NULL && i < n; i++) {
    if (ids[i] >= ATSK_STATE_ID_LOADED) {
      return NULL;
    }
    ids[i] |= ATSK_STATE_ID_LOADED;
  }
  return ids;
}

/* --- header and settings ------------------------------------------------------------------------------------------------------ */

/* Why a header is not one of ours; NULL: it is. */
static const char *
header_fault(const struct atsk_state_header *header, const uint8_t *bytes, size_t len, const uint8_t *options, bool checksum)
{
  const struct atsk_siphash_key key = {ATSK_STATE_MAGIC, ATSK_STATE_VERSION};
  if (header->magic != ATSK_STATE_MAGIC) {
    return "it is not a state file of atsk8s";
  }
  if (header->version != ATSK_STATE_VERSION || header->header_size != sizeof *header) {
    return "it is of another version of atsk8s";
  }
  if (header->total_size != len) {
    return "it is cut short, or longer than it says";
  }
  if (checksum && header->checksum != atsk_siphash(&key, (const char *)bytes + CHECKED_FROM, len - CHECKED_FROM)) {
    return "its checksum is wrong: it is corrupt";
  }
  if (header->blob_version != ATSK_BLOB_VERSION) {
    return "its virtual hosts are of another version of atsk8s";
  }
  if (memcmp(header->options, options, sizeof header->options) != 0) {
    return "it was written under other options";
  }
  return NULL;
}

static bool
settings_take(struct cursor *cursor, struct atsk_settings *out)
{
  const struct atsk_state_settings *fixed = take(cursor, sizeof *fixed);
  if (fixed == NULL || fixed->n_trusted > ATSK_TRUSTED_MAX || fixed->health_path_len == 0 ||
      fixed->health_path_len > ATSK_HEALTH_PATH_MAX || (fixed->flags & ~FLAGS_KNOWN) != 0) {
    return false;
  }
  const struct atsk_state_network *networks = take(cursor, fixed->n_trusted * sizeof *networks);
  const char *health_path                   = networks == NULL ? NULL : take(cursor, fixed->health_path_len);
  if (health_path == NULL || health_path[0] != '/') {
    return false;
  }
  memset(out, 0, sizeof *out);
  for (uint32_t i = 0; i < fixed->n_trusted; i++) {
    struct atsk_network *network = &out->trusted[i];
    memcpy(network->addr, networks[i].addr, sizeof network->addr);
    network->family = networks[i].family;
    network->bits   = networks[i].bits;
    if (!(network->family == ATSK_FAMILY_IPV4 && network->bits <= 32) &&
        !(network->family == ATSK_FAMILY_IPV6 && network->bits <= 128)) {
      return false;
    }
  }
  memcpy(out->health_path, health_path, fixed->health_path_len);
  out->health_path_len      = fixed->health_path_len;
  out->n_trusted            = fixed->n_trusted;
  out->cache                = (fixed->flags & ATSK_STATE_CACHE) != 0;
  out->reject_encoded_slash = (fixed->flags & ATSK_STATE_REJECT_ENCODED_SLASH) != 0;
  out->allow_loopback_names = (fixed->flags & ATSK_STATE_ALLOW_LOOPBACK_NAMES) != 0;
  out->log_fields           = (fixed->flags & ATSK_STATE_LOG_FIELDS) != 0;
  return fixed->reserved == 0 && atsk_defaults_of(&fixed->defaults, &out->defaults) == ATSK_OK;
}

/* --- records: each is staged as one call of the commit ---------------------------------------------------------------------------- */

static enum atsk_status
service_stage(struct cursor body)
{
  const struct atsk_state_service *fixed = take(&body, sizeof *fixed);
  if (fixed == NULL || fixed->id >= ATSK_STATE_ID_LOADED) {
    return ATSK_E_TRUNCATED;
  }
  return atsk_commit_service(fixed->id | ATSK_STATE_ID_LOADED, (struct atsk_span){body.at, body.left}, fixed->max_failures);
}

static enum atsk_status
name_stage(struct cursor body)
{
  const struct atsk_state_name *fixed = take(&body, sizeof *fixed);
  const char *name                    = fixed == NULL ? NULL : take(&body, fixed->name_len);
  if (name == NULL || body.left != 0 || fixed->id >= ATSK_STATE_ID_LOADED) {
    return ATSK_E_TRUNCATED;
  }
  struct atsk_str as_written = {name, fixed->name_len};
  struct atsk_host normal; /* it is looked up in DNS: nothing but a host name may be */
  if (atsk_host_normalise(as_written, &normal) != ATSK_REQUEST_FINE || normal.len != as_written.len ||
      memcmp(normal.bytes, as_written.ptr, as_written.len) != 0) {
    return ATSK_E_HOST;
  }
  return atsk_commit_service_name(fixed->id | ATSK_STATE_ID_LOADED, as_written, fixed->port, fixed->max_failures);
}

static enum atsk_status
certificate_stage(struct cursor body)
{
  const struct atsk_state_certificate *fixed = take(&body, sizeof *fixed);
  const uint8_t *chain                       = fixed == NULL ? NULL : take(&body, fixed->chain_len);
  const uint8_t *key                         = chain == NULL ? NULL : take(&body, fixed->key_len);
  if (key == NULL || body.left != 0 || fixed->id >= ATSK_STATE_ID_LOADED) {
    return ATSK_E_TRUNCATED;
  }
  uint64_t id = fixed->id | ATSK_STATE_ID_LOADED;
  if (fixed->chain_len == 0) {
    return atsk_commit_certificate_empty(id);
  }
  enum atsk_status st =
    atsk_commit_certificate(id, (struct atsk_span){chain, fixed->chain_len}, (struct atsk_span){key, fixed->key_len});
  /* One that this machine's OpenSSL has come to refuse costs its own hosts. */
  return st == ATSK_E_CERT || st == ATSK_E_KEY ? atsk_commit_certificate_empty(id) : st;
}

static enum atsk_status
vhost_stage(struct cursor body)
{
  const struct atsk_state_vhost *fixed = take(&body, sizeof *fixed);
  const char *host                     = fixed == NULL ? NULL : take(&body, fixed->host_len);
  const uint64_t *services             = host == NULL ? NULL : ids_take(&body, fixed->n_services);
  const uint64_t *routes               = services == NULL ? NULL : ids_take(&body, fixed->n_routes);
  const uint8_t *blob                  = routes == NULL ? NULL : take(&body, fixed->blob_len);
  if (blob == NULL || body.left != 0) {
    return ATSK_E_TRUNCATED;
  }
  return atsk_commit_vhost(fixed->local_port, (enum atsk_vhost_place)fixed->place, (struct atsk_str){host, fixed->host_len},
                           (struct atsk_span){blob, fixed->blob_len}, services, fixed->n_services, routes, fixed->n_routes);
}

static enum atsk_status
policy_stage(struct cursor body)
{
  const struct atsk_state_policy *fixed = take(&body, sizeof *fixed);
  const char *host                      = fixed == NULL ? NULL : take(&body, fixed->host_len);
  const uint64_t *ids                   = host == NULL ? NULL : ids_take(&body, fixed->n_certificates);
  if (ids == NULL || body.left != 0) {
    return ATSK_E_TRUNCATED;
  }
  return atsk_commit_tls(fixed->local_port, (enum atsk_vhost_place)fixed->place, (struct atsk_str){host, fixed->host_len}, ids,
                         fixed->n_certificates);
}

static enum atsk_status
record_stage(struct cursor *cursor, struct atsk_state_loaded *out)
{
  const struct atsk_state_record *record = take(cursor, sizeof *record);
  struct cursor body                     = {NULL, record == NULL ? 0 : record->size};
  body.at                                = record == NULL || record->size % 8 != 0 ? NULL : take(cursor, record->size);
  if (body.at == NULL) {
    return ATSK_E_TRUNCATED;
  }
  switch (record->kind) {
  case ATSK_STATE_SERVICE:
    return service_stage(body);
  case ATSK_STATE_SERVICE_NAME:
    return name_stage(body);
  case ATSK_STATE_CERTIFICATE:
    return certificate_stage(body);
  case ATSK_STATE_VHOST:
    out->n_vhosts++;
    return vhost_stage(body);
  case ATSK_STATE_POLICY:
    return policy_stage(body);
  default:
    return ATSK_E_LAYOUT;
  }
}

static enum atsk_status
records_stage(struct cursor cursor, uint32_t n_records, struct atsk_state_loaded *out)
{
  for (uint32_t i = 0; i < n_records; i++) {
    enum atsk_status st = record_stage(&cursor, out);
    if (st != ATSK_OK) {
      return st;
    }
  }
  return cursor.left == 0 ? ATSK_OK : ATSK_E_LAYOUT;
}

enum atsk_status
atsk_state_stage_bytes(uint8_t *bytes, size_t len, const uint8_t options[ATSK_OPTIONS_DIGEST], bool checksum,
                       struct atsk_state_loaded *out, char *why)
{
  struct cursor cursor                   = {bytes, len};
  const struct atsk_state_header *header = take(&cursor, sizeof *header);
  const char *fault                      = header == NULL ? "it is cut short" : header_fault(header, bytes, len, options, checksum);
  if (fault == NULL && (len % 8 != 0 || !settings_take(&cursor, &out->settings))) {
    fault = "its settings are out of range";
  }
  if (fault != NULL) {
    why_set(why, fault);
    return ATSK_E_LAYOUT;
  }
  out->written_s      = header->written_s;
  out->n_vhosts       = 0;
  enum atsk_status st = atsk_commit_begin();
  if (st != ATSK_OK) {
    why_set(why, st == ATSK_E_NOMEM ? "no memory" : "a table is being published already");
    return st;
  }
  st = records_stage(cursor, header->n_records, out);
  if (st != ATSK_OK) {
    atsk_commit_abort();
    (void)snprintf(why, ATSK_STATE_WHY_MAX, st == ATSK_E_NOMEM ? "no memory (status %d)" : "a record of it is wrong (status %d)",
                   (int)st);
  }
  return st;
}

/* --- the file -------------------------------------------------------------------------------------------------------------------- */

static enum atsk_status
errno_say(const char *path, char *why)
{
  char text[128] = "";
  int error      = errno;
  (void)snprintf(why, ATSK_STATE_WHY_MAX, "%.300s: %s", path, strerror_r(error, text, sizeof text));
  return ATSK_E_IO;
}

/* Reads all of `fd` into pages of their own, so that a file that changes meanwhile changes nothing here; munmap() gives them back. */
static enum atsk_status
file_read(int fd, const char *path, uint8_t **bytes, size_t *len, char *why)
{
  struct stat status;
  if (fstat(fd, &status) != 0) {
    return errno_say(path, why);
  }
  if (!S_ISREG(status.st_mode) || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    why_set(why, "it is not a plain file that its owner alone can write");
    return ATSK_E_IO;
  }
  if (status.st_size < (off_t)sizeof(struct atsk_state_header) || status.st_size > (off_t)ATSK_STATE_MAX) {
    why_set(why, "its size is out of range");
    return ATSK_E_RANGE;
  }
  size_t size = (size_t)status.st_size;
  void *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (pages == MAP_FAILED) {
    why_set(why, "no memory");
    return ATSK_E_NOMEM;
  }
  (void)madvise(pages, size, MADV_DONTDUMP); /* there may be keys in it */
  for (size_t done = 0; done < size;) {
    ssize_t n = read(fd, (uint8_t *)pages + done, size - done);
    if (n == 0 || (n < 0 && errno != EINTR)) {
      if (n == 0) {
        why_set(why, "it was cut short while it was read");
      } else {
        (void)errno_say(path, why);
      }
      (void)munmap(pages, size);
      return ATSK_E_IO;
    }
    done += n > 0 ? (size_t)n : 0;
  }
  *bytes = pages;
  *len   = size;
  return ATSK_OK;
}

enum atsk_status
atsk_state_stage(const char *dir, const uint8_t options[ATSK_OPTIONS_DIGEST], struct atsk_state_loaded *out, char *why)
{
  char path[4200];
  if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, ATSK_STATE_NAME) >= sizeof path) {
    why_set(why, "the directory's name is too long");
    return ATSK_E_IO;
  }
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW); /* a FIFO in its place must not hold the start up */
  if (fd < 0) {
    bool is_absent = errno == ENOENT && access(dir, F_OK) == 0;
    (void)errno_say(path, why);
    return is_absent ? ATSK_MISS : ATSK_E_IO;
  }
  uint8_t *bytes      = NULL;
  size_t len          = 0;
  enum atsk_status st = file_read(fd, path, &bytes, &len, why);
  (void)close(fd);
  if (st != ATSK_OK) {
    return st;
  }
  st = atsk_state_stage_bytes(bytes, len, options, true, out, why);
  (void)munmap(bytes, len);
  return st;
}
