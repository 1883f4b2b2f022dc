/* The persistent host trie: labels of a host name, last first, lead to a node; a node's children are a hash array mapped trie, so
 * that a change below a node with 100,000 children copies a few dozen pointers and not the node.  Lookup reads only; insert and
 * delete copy the path they change and leave every published version as it was.  Single writer.  No atomics: publish.c owns
 * the order in which a version becomes visible, and frees what a version replaced. */
#ifndef ATSK_TRIE_H
#define ATSK_TRIE_H

#include <stdbool.h>

#include "base/atsk_base.h"

ATSK_BEGIN_DECLS

struct atsk_trie_node;
struct atsk_service;    /* endpoints.h */
struct atsk_tls_policy; /* certificates.h */

/* Runtime state of a route, keyed by its identity, which outlives commits (counters now; cache generation later). */
struct atsk_route_state;

/* A virtual host as readers see it: its blob and the stable objects that the blob's indexes mean. */
struct atsk_published_vhost {
  struct atsk_span blob; /* validated */
  struct atsk_service *const *services;
  struct atsk_route_state *const *routes;
};

/* What a host name leads to.  Either pointer may be NULL. */
struct atsk_trie_value {
  struct atsk_published_vhost *vhost;
  struct atsk_tls_policy *tls;
};

enum atsk_host_kind {
  ATSK_HOST_EXACT    = 0, /* "a.example" */
  ATSK_HOST_WILDCARD = 1, /* the host is "example" and stands for "*.example": exactly one label more (Ingress v1) */
};

/* Calls `visit` for everything that one version holds, in no order, until it returns false, which is returned then.  `host` and `value`
 * are borrowed for the call.  The version must stay: inside a read section, or by the writer. */
bool atsk_trie_each(const struct atsk_trie_node *root,
                    bool (*visit)(void *context, struct atsk_str host, enum atsk_host_kind kind,
                                  const struct atsk_trie_value *value),
                    void *context);

/* One commit's edits: what it made (freed if it is dropped) and what it replaced (freed a grace period after the swap). */
struct atsk_trie_edit;

/* `host` is normalised (request.h).  The exact entry's and the one-label wildcard's vhost and tls are looked up apart:
 * a host that has an exact vhost and a wildcard certificate gets both.  Misses leave NULL. */
void atsk_trie_lookup(const struct atsk_trie_node *root, struct atsk_str host, struct atsk_trie_value *exact,
                      struct atsk_trie_value *wildcard);

struct atsk_trie_edit *atsk_trie_edit_begin(const struct atsk_trie_node *root); /* NULL: no memory */
/* Sets one half of a host's value (the other half stays); NULL removes it, and removes nodes that lead nowhere.  The former
 * pointer goes to *former (the caller retires what it pointed to). */
enum atsk_status atsk_trie_edit_vhost(struct atsk_trie_edit *edit, struct atsk_str host, enum atsk_host_kind kind,
                                      struct atsk_published_vhost *vhost, struct atsk_published_vhost **former) ATSK_MUST_CHECK;
enum atsk_status atsk_trie_edit_tls(struct atsk_trie_edit *edit, struct atsk_str host, enum atsk_host_kind kind,
                                    struct atsk_tls_policy *tls, struct atsk_tls_policy **former) ATSK_MUST_CHECK;
/* Ends the edit: the new root, and the garbage that only older versions can reach (opaque, freed by atsk_trie_garbage_free). */
struct atsk_trie_garbage;
const struct atsk_trie_node *atsk_trie_edit_finish(struct atsk_trie_edit *edit, struct atsk_trie_garbage **garbage);
/* What stands at a host in the trie to come.  `host` is one that a table can hold; borrowed until the next edit. */
struct atsk_trie_value atsk_trie_edit_value(const struct atsk_trie_edit *edit, struct atsk_str host, enum atsk_host_kind kind);
void atsk_trie_edit_drop(struct atsk_trie_edit *edit); /* frees what the edit made; the old root is as it was */
void atsk_trie_garbage_free(struct atsk_trie_garbage *garbage);
void atsk_trie_free_all(const struct atsk_trie_node *root); /* tests: every node of one version, not its values */

ATSK_END_DECLS
#endif
