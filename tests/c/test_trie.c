/* The persistent trie against a plain array, over random edits: the version at hand agrees, older versions stay as they were, an
 * edit that is dropped or runs out of memory leaves no trace.  Values are numbers dressed as pointers: the trie never follows them. */
#include "tap.h"
#include "table/trie.h"

#define N_HOSTS 400
#define N_VERSIONS 8

struct values {
  uintptr_t vhost, tls;
};

static char host_names[N_HOSTS][64];

struct version {
  const struct atsk_trie_node *root;
  struct values exact[N_HOSTS], wildcard[N_HOSTS];
  struct atsk_trie_garbage *garbage; /* what only versions up to this one can reach */
};

static struct version versions[N_VERSIONS]; /* a ring: the oldest is replaced */

static struct atsk_str
host_at(uint32_t i)
{
  return (struct atsk_str){host_names[i], strlen(host_names[i])};
}

/* Hosts that share suffixes, stand above one another, and are wide at one node. */
static void
hosts_make(void)
{
  for (uint32_t i = 0; i < N_HOSTS; i++) {
    if (i < 150) {
      snprintf(host_names[i], sizeof host_names[i], "h%u.wide.example", i);
    } else if (i < 300) {
      snprintf(host_names[i], sizeof host_names[i], "%c.%c.n%u.t%u", 'a' + (int)(i % 5), 'a' + (int)(i / 5 % 5), i % 7, i % 3);
    } else if (i < 305) {
      static const char *const above[] = {"example", "wide.example", "t1", "n2.t1", "[::ffff:1.2.3.4]"};
      snprintf(host_names[i], sizeof host_names[i], "%s", above[i - 300]);
    } else {
      snprintf(host_names[i], sizeof host_names[i], "x%u", i);
    }
    for (uint32_t j = 0; j < i; j++) {
      if (strcmp(host_names[i], host_names[j]) == 0) { /* the pattern repeats: make it a host of its own */
        snprintf(host_names[i], sizeof host_names[i], "again%u.n1.t1", i);
      }
    }
  }
}

/* Index of the host one label shorter, N_HOSTS if it is none of ours. */
static uint32_t
parent_of(uint32_t i)
{
  const char *dot = host_names[i][0] == '[' ? NULL : strchr(host_names[i], '.');
  uint32_t j      = N_HOSTS;
  if (dot != NULL) {
    for (j = 0; j < N_HOSTS && strcmp(host_names[j], dot + 1) != 0; j++) {
    }
  }
  return j;
}

static bool
version_agrees(const struct version *version)
{
  static uint32_t parents[N_HOSTS];
  static bool is_known;
  for (uint32_t i = 0; !is_known && i < N_HOSTS; i++) {
    parents[i] = parent_of(i);
  }
  is_known = true;
  for (uint32_t i = 0; i < N_HOSTS; i++) {
    struct atsk_trie_value exact, wildcard;
    atsk_trie_lookup(version->root, host_at(i), &exact, &wildcard);
    struct values none = {0, 0}, above = parents[i] == N_HOSTS ? none : version->wildcard[parents[i]];
    if ((uintptr_t)exact.vhost != version->exact[i].vhost || (uintptr_t)exact.tls != version->exact[i].tls ||
        (uintptr_t)wildcard.vhost != above.vhost || (uintptr_t)wildcard.tls != above.tls) {
      printf("# %s: exact %p %p wildcard %p %p\n", host_names[i], (void *)exact.vhost, (void *)exact.tls, (void *)wildcard.vhost,
             (void *)wildcard.tls);
      return false;
    }
  }
  return true;
}

/* One random change, made to the trie and to the array.  false: the trie had no memory. */
static bool
change(struct atsk_trie_edit *edit, struct version *next)
{
  uint32_t i               = random_below(N_HOSTS);
  enum atsk_host_kind kind = random_below(3) == 0 ? ATSK_HOST_WILDCARD : ATSK_HOST_EXACT;
  uintptr_t value          = random_below(5) < 2 ? 0 : (uintptr_t)random_next() | 1;
  struct values *values    = kind == ATSK_HOST_EXACT ? &next->exact[i] : &next->wildcard[i];
  enum atsk_status st;
  if (random_below(3) > 0) {
    struct atsk_published_vhost *former = NULL;
    st                                  = atsk_trie_edit_vhost(edit, host_at(i), kind, (void *)value, &former);
    REQUIRE(st != ATSK_OK || (uintptr_t)former == values->vhost, "former vhost of %s", host_names[i]);
    values->vhost = st == ATSK_OK ? value : values->vhost;
  } else {
    struct atsk_tls_policy *former = NULL;
    st                             = atsk_trie_edit_tls(edit, host_at(i), kind, (void *)value, &former);
    REQUIRE(st != ATSK_OK || (uintptr_t)former == values->tls, "former tls of %s", host_names[i]);
    values->tls = st == ATSK_OK ? value : values->tls;
  }
  REQUIRE(st == ATSK_OK || st == ATSK_E_NOMEM, "status %d", st);
  return st == ATSK_OK;
}

static void
random_edits(unsigned n_rounds, bool is_failing)
{
  static struct version next;
  uint32_t at        = 0; /* the newest in the ring */
  unsigned n_failed  = 0;
  unsigned n_dropped = 0;
  memset(versions, 0, sizeof versions);
  for (unsigned round = 0; round < n_rounds; round++) {
    next                        = versions[at];
    next.garbage                = NULL;
    struct atsk_trie_edit *edit = atsk_trie_edit_begin(versions[at].root);
    for (uint32_t n = 1 + random_below(random_below(10) == 0 ? 200 : 4); n > 0; n--) {
      fail_allocation(is_failing ? 1 + random_below(6) : 0);
      n_failed += !change(edit, &next);
      fail_allocation(0);
    }
    if (random_below(4) == 0) {
      atsk_trie_edit_drop(edit);
      n_dropped++;
      REQUIRE(version_agrees(&versions[at]), "round %u: dropped without a trace", round);
      continue;
    }
    struct atsk_trie_garbage *garbage;
    next.root            = atsk_trie_edit_finish(edit, &garbage);
    versions[at].garbage = garbage;
    at                   = (at + 1) % N_VERSIONS;
    atsk_trie_garbage_free(versions[at].garbage); /* the oldest version goes */
    versions[at] = next;
    REQUIRE(version_agrees(&versions[at]), "round %u: the new version", round);
    REQUIRE(version_agrees(&versions[(at + 1 + random_below(N_VERSIONS - 1)) % N_VERSIONS]) || round < N_VERSIONS,
            "round %u: an old version", round);
  }
  CHECK(version_agrees(&versions[at]), "%u rounds, %u dropped, %u changes without memory", n_rounds, n_dropped, n_failed);
  for (uint32_t i = 1; i <= N_VERSIONS; i++) {
    atsk_trie_garbage_free(i == N_VERSIONS ? NULL : versions[(at + i) % N_VERSIONS].garbage);
  }
  atsk_trie_free_all(versions[at].root);
}

/* What is inserted and removed again leaves the empty trie. */
static void
emptied(void)
{
  struct atsk_trie_edit *edit         = atsk_trie_edit_begin(NULL);
  struct atsk_published_vhost *former = NULL;
  for (uint32_t i = 0; i < N_HOSTS; i++) {
    REQUIRE(atsk_trie_edit_vhost(edit, host_at(i), ATSK_HOST_EXACT, (void *)(uintptr_t)(i + 1), &former) == ATSK_OK, "insert");
  }
  struct atsk_trie_garbage *garbage;
  const struct atsk_trie_node *full = atsk_trie_edit_finish(edit, &garbage);
  CHECK(full != NULL && garbage == NULL, "%d hosts in one edit make no garbage", N_HOSTS);
  edit = atsk_trie_edit_begin(full);
  for (uint32_t i = N_HOSTS; i-- > 0;) {
    REQUIRE(atsk_trie_edit_vhost(edit, host_at(i), ATSK_HOST_EXACT, NULL, &former) == ATSK_OK && (uintptr_t)former == i + 1,
            "remove");
  }
  CHECK(atsk_trie_edit_finish(edit, &garbage) == NULL, "all removed: no root");
  atsk_trie_garbage_free(garbage);
}

static void
refused(void)
{
  static const char *const bad[]      = {"",   ".",  "a..b",
                                         ".a", "a.", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.b"};
  struct atsk_trie_edit *edit         = atsk_trie_edit_begin(NULL);
  struct atsk_published_vhost *former = NULL;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    struct atsk_str host = {bad[i], strlen(bad[i])};
    CHECK(atsk_trie_edit_vhost(edit, host, ATSK_HOST_EXACT, (void *)8, &former) == ATSK_E_HOST, "refused: \"%s\"", bad[i]);
  }
  char deep[2 * ATSK_LABELS_MAX];
  memset(deep, '.', sizeof deep);
  for (size_t i = 0; i < sizeof deep; i += 2) {
    deep[i] = 'a';
  }
  struct atsk_str deepest = {deep, sizeof deep - 1};
  struct atsk_trie_value exact, wildcard;
  CHECK(atsk_trie_edit_vhost(edit, deepest, ATSK_HOST_EXACT, (void *)8, &former) == ATSK_OK, "%u labels", ATSK_LABELS_MAX);
  struct atsk_trie_garbage *garbage;
  const struct atsk_trie_node *root = atsk_trie_edit_finish(edit, &garbage);
  atsk_trie_lookup(root, deepest, &exact, &wildcard);
  CHECK(exact.vhost == (void *)8 && wildcard.vhost == NULL, "%u labels found", ATSK_LABELS_MAX);
  atsk_trie_lookup(root, (struct atsk_str){deep, 0}, &exact, &wildcard);
  CHECK(exact.vhost == NULL && wildcard.vhost == NULL, "the empty name finds nothing");
  atsk_trie_lookup(root, STR("..a"), &exact, &wildcard);
  CHECK(exact.vhost == NULL && wildcard.vhost == NULL, "a malformed name finds nothing");
  atsk_trie_free_all(root);
}

#if !defined(ATSK_TRIE_HASH_MASK) /* with a full hash only: a bucket of equal hashes holds 64 */
/* A change below a node with many children copies dozens of pointers: bounded allocations and bytes, whatever the width. */
static void
cost_of_a_change(void)
{
  struct atsk_trie_edit *edit         = atsk_trie_edit_begin(NULL);
  struct atsk_published_vhost *former = NULL;
  struct atsk_trie_garbage *garbage;
  char name[64];
  const uint32_t n = 100000;
  for (uint32_t i = 0; i < n; i++) {
    int len = snprintf(name, sizeof name, "h%u.wide.example", i);
    REQUIRE(atsk_trie_edit_vhost(edit, (struct atsk_str){name, (size_t)len}, ATSK_HOST_EXACT, (void *)8, &former) == ATSK_OK,
            "insert");
  }
  const struct atsk_trie_node *root = atsk_trie_edit_finish(edit, &garbage);
  edit                              = atsk_trie_edit_begin(root);
  fail_allocation(0);
  CHECK(atsk_trie_edit_vhost(edit, STR("h777.wide.example"), ATSK_HOST_EXACT, (void *)16, &former) == ATSK_OK, "one of %u changes",
        n);
  CHECK(allocations <= 4 + 11 * 3, "%llu allocations for one change among %u", (unsigned long long)allocations, n);
  root = atsk_trie_edit_finish(edit, &garbage);
  atsk_trie_garbage_free(garbage);
  atsk_trie_free_all(root);
}

#endif

int
main(void)
{
  random_seed();
  hosts_make();
  emptied();
  refused();
#if !defined(ATSK_TRIE_HASH_MASK)
  cost_of_a_change();
#endif
  random_edits((unsigned)setting("ATSK8S_ROUNDS", 1500), false);
  random_edits((unsigned)setting("ATSK8S_ROUNDS", 1500), true);
  return tap_end();
}
