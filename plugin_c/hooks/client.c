/* See client.h. */
#include "hooks/client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#define ENTRY_MAX 64u /* bytes of one entry: an IPv6 address in brackets with a port, and then some */

static void
ipv4_set(struct atsk_client *out, const void *addr)
{
  memset(out, 0, sizeof *out);
  memcpy(out->addr, addr, 4);
  out->family = ATSK_FAMILY_IPV4;
}

static void
ipv6_set(struct atsk_client *out, const struct in6_addr *addr)
{
  if (IN6_IS_ADDR_V4MAPPED(addr)) {
    ipv4_set(out, addr->s6_addr + 12);
  } else {
    memcpy(out->addr, addr->s6_addr, 16);
    out->family = ATSK_FAMILY_IPV6;
  }
}

void
atsk_client_of_peer(const struct sockaddr *peer, struct atsk_client *out)
{
  memset(out, 0, sizeof *out);
  if (peer != NULL && peer->sa_family == AF_INET) {
    ipv4_set(out, &((const struct sockaddr_in *)(const void *)peer)->sin_addr);
  } else if (peer != NULL && peer->sa_family == AF_INET6) {
    ipv6_set(out, &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr);
  }
}

bool
atsk_client_is_trusted(const struct atsk_settings *settings, const struct atsk_client *client)
{
  return client->family != 0 && settings->n_trusted > 0 && atsk_settings_trusts(settings, client->family, client->addr);
}

/* An entry as proxies write it: 192.0.2.1, 192.0.2.1:80, 2001:db8::1, [2001:db8::1], [2001:db8::1]:80.  False: none of these. */
static bool
entry_parse(const char *text, size_t len, struct atsk_client *out)
{
  char bare[ENTRY_MAX];
  struct in6_addr v6;
  struct in_addr v4;
  const char *end = len > 0 && text[0] == '[' ? memchr(text, ']', len) : NULL;
  if (end != NULL) {
    len = (size_t)(end - text) - 1;
    text++;
  } else {
    const char *colon = memchr(text, ':', len);
    if (colon != NULL && memchr(colon + 1, ':', len - (size_t)(colon + 1 - text)) == NULL) { /* a port, not IPv6 */
      len = (size_t)(colon - text);
    }
  }
  if (len == 0 || len >= sizeof bare || memchr(text, '\0', len) != NULL) {
    return false;
  }
  memcpy(bare, text, len);
  bare[len] = '\0';
  if (inet_pton(AF_INET, bare, &v4) == 1) {
    ipv4_set(out, &v4);
    return true;
  }
  if (inet_pton(AF_INET6, bare, &v6) == 1) {
    memset(out, 0, sizeof *out);
    ipv6_set(out, &v6);
    return true;
  }
  return false;
}

static bool
is_space(char c)
{
  return c == ' ' || c == '\t';
}

bool
atsk_client_of_forwarded(const struct atsk_settings *settings, struct atsk_str value, struct atsk_client *client)
{
  size_t end = value.len;
  while (atsk_client_is_trusted(settings, client)) { /* bounded by the value's commas, and those by the header's size */
    size_t begin = end;
    while (begin > 0 && value.ptr[begin - 1] != ',') {
      begin--;
    }
    size_t from = begin, to = end;
    while (from < to && is_space(value.ptr[from])) {
      from++;
    }
    while (to > from && is_space(value.ptr[to - 1])) {
      to--;
    }
    struct atsk_client named;
    if (from < to) { /* an empty list element is none (RFC 9110 section 5.6.1) */
      if (!entry_parse(value.ptr + from, to - from, &named)) {
        return false;
      }
      *client = named;
    }
    if (begin == 0) {
      return atsk_client_is_trusted(settings, client);
    }
    end = begin - 1;
  }
  return false;
}
