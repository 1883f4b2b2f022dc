/* From a normalised request to a rule, from a server name to a TLS policy.  Any thread, inside its read section; no state. */
#include "table/match.h"

#include "blob/vhost.h"

/* The listener of this port, or the one for every port; NULL: neither.  Few listeners, sorted: port 0 is the first. */
static const struct atsk_listener *
listener_find(const struct atsk_table *table, uint16_t local_port)
{
  const struct atsk_listener *any = NULL;
  for (uint32_t i = 0; i < table->n_listeners; i++) {
    const struct atsk_listener *listener = &table->listeners[i];
    if (listener->local_port == local_port) {
      return listener;
    }
    if (listener->local_port == 0) {
      any = listener;
    }
  }
  return any;
}

/* A virtual host's blob stands right behind it (publish.c), and a small one is all that a request reads: fetching its first lines at
 * once instead of one after the other halves a decision whose host is not in the caches. */
static void
vhost_prefetch(const struct atsk_published_vhost *vhost)
{
  uintptr_t at = (uintptr_t)vhost; /* a number: some of it may lie behind the end of the allocation, or vhost be NULL */
  for (unsigned i = 0; i < 5; i++) {
    __builtin_prefetch((const void *)(at + (uintptr_t)i * 64u)); /* of any address: a prefetch never faults */
  }
}

/* Whether `vhost` (NULL: no) has a rule for the path; then it is in *out. */
static int
vhost_match(const struct atsk_published_vhost *vhost, struct atsk_str path, struct atsk_match *out)
{
  uint32_t rule;
  if (vhost == NULL || atsk_blob_match(vhost->blob, path, &rule) != ATSK_OK) {
    return 0;
  }
  *out = (struct atsk_match){.kind = ATSK_MATCH_RULE, .vhost = vhost, .rule = atsk_blob_rule_at(vhost->blob, rule)};
  return 1;
}

struct atsk_match
atsk_match_request(const struct atsk_table *table, uint16_t local_port, struct atsk_str host, struct atsk_str path)
{
  struct atsk_match match              = {.kind = ATSK_MATCH_NO_HOST, .vhost = NULL, .rule = NULL};
  const struct atsk_listener *listener = table == NULL ? NULL : listener_find(table, local_port);
  if (listener == NULL) {
    return match;
  }
  struct atsk_trie_value exact, wildcard;
  atsk_trie_lookup(listener->hosts, host, &exact, &wildcard);
  const struct atsk_published_vhost *vhost = exact.vhost != NULL ? exact.vhost : wildcard.vhost;
  if (vhost == NULL) {
    vhost = listener->no_host;
  }
  vhost_prefetch(vhost);
  if (!vhost_match(vhost, path, &match) && !vhost_match(listener->fallback, path, &match) && vhost != NULL) {
    match.kind = ATSK_MATCH_NO_PATH;
  }
  return match;
}

const struct atsk_tls_policy *
atsk_match_sni(const struct atsk_table *table, uint16_t local_port, struct atsk_str sni)
{
  const struct atsk_listener *listener = table == NULL ? NULL : listener_find(table, local_port);
  if (listener == NULL) {
    return NULL;
  }
  struct atsk_trie_value exact, wildcard;
  atsk_trie_lookup(listener->hosts, sni, &exact, &wildcard);
  if (exact.tls != NULL) {
    return exact.tls;
  }
  return wildcard.tls != NULL ? wildcard.tls : listener->default_tls;
}

struct atsk_service *
atsk_match_service(const struct atsk_match *match, uint64_t pick)
{
  if (match->rule == NULL || match->rule->n_backends == 0) {
    return NULL;
  }
  const struct atsk_blob_backend *backends = atsk_blob_backend_at(match->vhost->blob, match->rule->first_backend);
  uint32_t n                               = match->rule->n_backends;
  uint32_t chosen                          = 0;
  if (n > 1) {
    uint64_t total = 0; /* of 32-bit weights in at most 2^23 backends: cannot overflow */
    for (uint32_t i = 0; i < n; i++) {
      total += backends[i].weight;
    }
    uint64_t left = pick % total;
    while (chosen + 1 < n && left >= backends[chosen].weight) {
      left -= backends[chosen++].weight;
    }
  }
  return match->vhost->services[backends[chosen].service];
}
