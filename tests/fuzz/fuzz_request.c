/* Bytes as authority and path, parted by the first line feed: what is accepted is in normal form, no longer than what came in,
 * and its own normal form; and any bytes at all can be looked up in a host trie, as a server name is. */
#include "replay.h"
#include "table/request.h"
#include "table/trie.h"

#include <stdlib.h>
#include <string.h>

static const struct atsk_trie_node *hosts;

static void
hosts_make(void)
{
  static const char *const names[] = {"a.example", "example", "b.a.example", "[::1]", "x", "a.b.c.d.e.f"};
  struct atsk_trie_edit *edit      = atsk_trie_edit_begin(NULL);
  struct atsk_trie_garbage *garbage;
  struct atsk_published_vhost *former;
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    struct atsk_str name = {names[i], strlen(names[i])};
    FUZZ_REQUIRE(atsk_trie_edit_vhost(edit, name, (enum atsk_host_kind)(i % 2), (void *)(i + 1), &former) == ATSK_OK);
  }
  hosts = atsk_trie_edit_finish(edit, &garbage);
}

static void
host_check(struct atsk_str authority)
{
  struct atsk_host host, again;
  struct atsk_trie_value exact, wildcard;
  atsk_trie_lookup(hosts, authority, &exact, &wildcard);
  if (atsk_host_normalise(authority, &host) != ATSK_REQUEST_FINE) {
    return;
  }
  FUZZ_REQUIRE(host.len > 0 && host.len <= authority.len && host.len <= ATSK_HOST_MAX && host.bytes[host.len] == '\0');
  for (size_t i = 0; i < host.len; i++) {
    FUZZ_REQUIRE(host.bytes[i] > ' ' && host.bytes[i] < 0x7f && !(host.bytes[i] >= 'A' && host.bytes[i] <= 'Z'));
  }
  FUZZ_REQUIRE(host.bytes[host.len - 1] != '.' && host.bytes[0] != '.');
  struct atsk_str normal = {host.bytes, host.len};
  FUZZ_REQUIRE(atsk_host_normalise(normal, &again) == ATSK_REQUEST_FINE && again.port == 0 && again.len == host.len &&
               memcmp(again.bytes, host.bytes, host.len) == 0);
  atsk_trie_lookup(hosts, normal, &exact, &wildcard);
}

static int
has_segment(struct atsk_str path, const char *segment)
{
  size_t n = strlen(segment);
  for (size_t i = 0; i + n < path.len; i++) {
    if (path.ptr[i] == '/' && memcmp(path.ptr + i + 1, segment, n) == 0 && (i + 1 + n == path.len || path.ptr[i + 1 + n] == '/')) {
      return 1;
    }
  }
  return 0;
}

static void
path_check(struct atsk_str path)
{
  char *room  = malloc(ATSK_PATH_MAX);
  char *spare = malloc(ATSK_PATH_MAX);
  struct atsk_str normal, again;
  enum atsk_request_fault fault = atsk_path_normalise(path, room, &normal);
  FUZZ_REQUIRE((fault == ATSK_REQUEST_LONG_PATH) == (path.len > ATSK_PATH_MAX));
  if (fault == ATSK_REQUEST_FINE) {
    FUZZ_REQUIRE(normal.len > 0 && normal.ptr[0] == '/' && (path.len == 0 || normal.len <= 3 * path.len) &&
                 normal.len <= ATSK_PATH_MAX);
    FUZZ_REQUIRE(!has_segment(normal, ".") && !has_segment(normal, ".."));
    FUZZ_REQUIRE(memmem(normal.ptr, normal.len, "//", 2) == NULL && memchr(normal.ptr, '\0', normal.len) == NULL);
    FUZZ_REQUIRE(atsk_path_normalise(normal, spare, &again) == ATSK_REQUEST_FINE);
    FUZZ_REQUIRE(again.len == normal.len && again.ptr == normal.ptr); /* nothing had to change: borrowed */
  }
  free(room);
  free(spare);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  if (hosts == NULL) {
    hosts_make();
  }
  const uint8_t *feed = size == 0 ? NULL : memchr(data, '\n', size);
  size_t host_len     = feed == NULL ? size : (size_t)(feed - data);
  size_t path_len     = feed == NULL ? 0 : size - host_len - 1;
  char *host          = malloc(host_len > 0 ? host_len : 1); /* exactly as long: a read past the end is seen */
  char *path          = malloc(path_len > 0 ? path_len : 1);
  if (host_len > 0) {
    memcpy(host, data, host_len);
  }
  if (path_len > 0) {
    memcpy(path, feed + 1, path_len);
  }
  host_check((struct atsk_str){host, host_len});
  path_check((struct atsk_str){path, path_len});
  free(host);
  free(path);
  return 0;
}
