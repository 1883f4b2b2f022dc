/* See snippets.h.  A thread's offer and its run are thread-local: a Lua state is under tslua.so's mutex while it runs, and a run does not
 * leave its thread. */
#include "hooks/snippets.h"

#include "controller/controller.h"
#include "controller/stats.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LINE_MAX_BYTES 1024u
#define TICK_INSTRUCTIONS 200 /* from one look at the bounds to the next */

/* --- the request's side ------------------------------------------------------------------------------------------------------- */

/* What this thread's last request with a snippet was offered.  `room` is never freed: one thread has one. */
static _Thread_local struct {
  struct atsk_snippet snippet;
  uint64_t txn;
  bool is_there;
  char object[ATSK_SNIPPET_OBJECT_MAX];
  char *room; /* ATSK_SNIPPET_MAX */
} offered;

static atomic_bool is_unclaimed_logged;

/* An offer that nobody took: tslua.so does not stand behind kubernetes_remap.so, or a plugin between them ended the chain. */
static void
unclaimed(void)
{
  static const char line[] =
    "a snippet was not run: with --snippets the rule of remap.config needs @plugin=tslua.so with snippets.lua "
    "right after kubernetes_remap.so (docs/snippets.md); atsk8s_snippets_total{result=\"not_run\"} counts on";
  atsk_count(ATSK_COUNT_SNIPPETS_NOT_RUN);
  if (!atomic_exchange_explicit(&is_unclaimed_logged, true, memory_order_relaxed)) { /* orders nothing: at worst a line more */
    atsk_controller_log(3, line, sizeof line - 1);
  }
}

void
atsk_snippets_offer(uint64_t txn, uint64_t id, struct atsk_str object, struct atsk_str text)
{
  if (offered.is_there) {
    offered.is_there = false;
    unclaimed();
  }
  if (offered.room == NULL) {
    offered.room = malloc(ATSK_SNIPPET_MAX);
  }
  if (offered.room == NULL || text.len > ATSK_SNIPPET_MAX) {
    atsk_count(ATSK_COUNT_SNIPPETS_NOT_RUN);
    return;
  }
  const size_t object_len = object.len < sizeof offered.object ? object.len : sizeof offered.object;
  if (object_len > 0) {
    memcpy(offered.object, object.ptr, object_len);
  }
  memcpy(offered.room, text.ptr, text.len);
  offered.snippet  = (struct atsk_snippet){id, offered.object, object_len, offered.room, text.len};
  offered.txn      = txn;
  offered.is_there = true;
}

/* --- Lua's side --------------------------------------------------------------------------------------------------------------- */

uint32_t
atsk_snippets_version(void)
{
  return ATSK_SNIPPETS_VERSION;
}

int
atsk_snippet_take(uint64_t txn, struct atsk_snippet *out)
{
  if (!offered.is_there || offered.txn != txn) {
    return ATSK_MISS;
  }
  offered.is_there = false;
  *out             = offered.snippet;
  return ATSK_OK;
}

static _Atomic uint64_t log_second;  /* in which lines are counted */
static _Atomic uint32_t log_n_lines; /* in that second */

/* Whether one more line may be logged.  relaxed, all: at the turn of a second some lines more or less are let through. */
static bool
log_has_room(void)
{
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  const uint64_t second = (uint64_t)now.tv_sec;
  if (atomic_load_explicit(&log_second, memory_order_relaxed) != second) {
    atomic_store_explicit(&log_second, second, memory_order_relaxed);
    atomic_store_explicit(&log_n_lines, 0, memory_order_relaxed);
  }
  return atomic_fetch_add_explicit(&log_n_lines, 1, memory_order_relaxed) < ATSK_SNIPPET_LINES_MAX;
}

void
atsk_snippet_report(int result, const char *object, size_t object_len, const char *message, size_t message_len)
{
  static const enum atsk_counter counters[] = {
    [ATSK_SNIPPET_RAN] = ATSK_COUNT_SNIPPETS_RAN,       [ATSK_SNIPPET_SYNTAX] = ATSK_COUNT_SNIPPETS_SYNTAX,
    [ATSK_SNIPPET_ERROR] = ATSK_COUNT_SNIPPETS_ERROR,   [ATSK_SNIPPET_STOPPED] = ATSK_COUNT_SNIPPETS_STOPPED,
    [ATSK_SNIPPET_MEMORY] = ATSK_COUNT_SNIPPETS_MEMORY, [ATSK_SNIPPET_SUSPENDED] = ATSK_COUNT_SNIPPETS_SUSPENDED,
  };
  if (result >= ATSK_SNIPPET_RAN && result < ATSK_SNIPPET_SAID) {
    atsk_count(counters[result]);
  }
  if (message_len == 0) {
    return;
  }
  if (!log_has_room()) {
    atsk_count(ATSK_COUNT_SNIPPET_LINES_DROPPED);
    return;
  }
  char line[LINE_MAX_BYTES];
  const int cut = (int)(message_len < LINE_MAX_BYTES ? message_len : LINE_MAX_BYTES);
  const int len =
    snprintf(line, sizeof line, "snippet of Ingress %.*s: %.*s", /* control bytes go in atsk_controller_log() */
             (int)(object_len < ATSK_SNIPPET_OBJECT_MAX ? object_len : ATSK_SNIPPET_OBJECT_MAX), object, cut, message);
  atsk_controller_log(3, line, len < 0 ? 0 : (size_t)len < sizeof line ? (size_t)len : sizeof line - 1);
}

/* --- bounds ------------------------------------------------------------------------------------------------------------------- */

/* Lua 5.1's API, as LuaJIT 2.1 has it (lua.h): tslua.so has loaded it for itself alone, and needs it to be installed, not its headers. */
typedef void *(*lua_allocator)(void *ud, void *ptr, size_t osize, size_t nsize);
typedef void (*lua_hook)(struct lua_State *state, void *activation);

#define LUA_MASK_COUNT 8 /* LUA_MASKCOUNT */
#define LUA_ERROR_MEMORY 4

static struct {
  int (*gettop)(struct lua_State *state);
  void (*insert)(struct lua_State *state, int index);
  void (*pushinteger)(struct lua_State *state, ptrdiff_t number);
  void (*pushboolean)(struct lua_State *state, int value);
  int (*pcall)(struct lua_State *state, int n_arguments, int n_results, int handler);
  int (*sethook)(struct lua_State *state, lua_hook hook, int mask, int count);
  int (*error)(struct lua_State *state, const char *format, ...);
  lua_allocator (*getallocf)(struct lua_State *state, void **ud);
  void (*setallocf)(struct lua_State *state, lua_allocator allocator, void *ud);
} lua;
static bool is_lua_found; /* written once, with `lua` */
static pthread_once_t lua_once = PTHREAD_ONCE_INIT;

static void
lua_find(void)
{
  static const struct {
    const char *name;
    void **place;
  } needed[] = {
    {"lua_gettop", (void **)&lua.gettop},
    {"lua_insert", (void **)&lua.insert},
    {"lua_pushinteger", (void **)&lua.pushinteger},
    {"lua_pushboolean", (void **)&lua.pushboolean},
    {"lua_pcall", (void **)&lua.pcall},
    {"lua_sethook", (void **)&lua.sethook},
    {"luaL_error", (void **)&lua.error},
    {"lua_getallocf", (void **)&lua.getallocf},
    {"lua_setallocf", (void **)&lua.setallocf},
  };
  void *library = dlopen("libluajit-5.1.so.2", RTLD_NOW | RTLD_NOLOAD);
  if (library == NULL) {
    return;
  }
  for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
    void *found = dlsym(library, needed[i].name);
    if (found == NULL) {
      return;
    }
    memcpy(needed[i].place, &found, sizeof found);
  }
  is_lua_found = true;
}

/* The run in hand of this thread. */
static _Thread_local struct {
  bool is_running;
  enum atsk_snippet_result over; /* the bound that it is over; ATSK_SNIPPET_RAN: none */
  uint32_t n_instructions;
  uint64_t begun_ns;
  size_t memory; /* that it may still add */
  lua_allocator allocator;
  void *ud;
} run;

static uint64_t
cpu_now_ns(void)
{
  struct timespec now;
  (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID,
                      &now); /* not the clock on the wall: other threads' work is no fault of a snippet's */
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void on_tick(struct lua_State *state, void *activation);

static bool
is_over(struct lua_State *state)
{
  if (run.over == ATSK_SNIPPET_RAN &&
      (run.n_instructions > ATSK_SNIPPET_INSTRUCTIONS_MAX || cpu_now_ns() - run.begun_ns > ATSK_SNIPPET_CPU_NS_MAX)) {
    run.over = ATSK_SNIPPET_STOPPED;
    (void)lua.sethook(state, on_tick, LUA_MASK_COUNT, 1); /* whoever catches the error gets no further */
  }
  return run.over != ATSK_SNIPPET_RAN;
}

/* Called by LuaJIT's interpreter every TICK_INSTRUCTIONS; snippets are never compiled, as compiled code calls no hooks. */
static void
on_tick(struct lua_State *state, void *activation)
{
  (void)activation;
  run.n_instructions += TICK_INSTRUCTIONS;
  if (is_over(state)) {
    (void)lua.error(state, "stopped: too many instructions, or too much time");
  }
}

/* lua_Alloc.  Shrinking never fails: Lua counts on it. */
static void *
allocate(void *ud, void *ptr, size_t osize, size_t nsize)
{
  (void)ud;
  if (nsize > osize && nsize - osize > run.memory) {
    run.over = ATSK_SNIPPET_MEMORY;
    return NULL;
  }
  void *made = run.allocator(run.ud, ptr, osize, nsize);
  if (made != NULL || nsize == 0) {
    run.memory = nsize > osize ? run.memory - (nsize - osize) : run.memory + (osize - nsize);
  }
  return made;
}

static enum atsk_snippet_result
result_of(int status)
{
  if (run.over != ATSK_SNIPPET_RAN) {
    return run.over;
  }
  return status == 0 ? ATSK_SNIPPET_RAN : status == LUA_ERROR_MEMORY ? ATSK_SNIPPET_MEMORY : ATSK_SNIPPET_ERROR;
}

int
atsk_snippet_guard(struct lua_State *state)
{
  (void)pthread_once(&lua_once, lua_find);
  if (!is_lua_found) {
    return 0; /* snippets.lua sees to it that this is an error when it is loaded */
  }
  const bool is_outer = !run.is_running;
  if (is_outer) {
    run.is_running     = true;
    run.over           = ATSK_SNIPPET_RAN;
    run.n_instructions = 0;
    run.begun_ns       = cpu_now_ns();
    run.memory         = ATSK_SNIPPET_MEMORY_MAX;
    run.allocator      = lua.getallocf(state, &run.ud);
    lua.setallocf(state, allocate, NULL);
    (void)lua.sethook(state, on_tick, LUA_MASK_COUNT, TICK_INSTRUCTIONS);
  }
  const int status = lua.pcall(state, lua.gettop(state) - 1, 1, 0);
  if (is_outer) {
    (void)lua.sethook(state, NULL, 0, 0);
    lua.setallocf(state, run.allocator, run.ud);
    run.is_running = false;
  }
  lua.pushinteger(state, (ptrdiff_t)result_of(status));
  lua.insert(state, -2);
  return 2;
}

int
atsk_snippet_is_over(struct lua_State *state)
{
  if (!is_lua_found) {
    return 0;
  }
  lua.pushboolean(state, run.is_running && is_over(state));
  return 1;
}
