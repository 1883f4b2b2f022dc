/* See pyhost.h.  Starts on ATS's main thread (plugin load); Python itself lives on a thread of its own from then on, and no ATS thread
 * ever takes the GIL.  Only hand-written file that includes Python.h. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "process/pyhost.h"

#include "controller/bridge.h"
#include "endpoints/affinity_key.h"
#include "controller/controller.h"
#include "process/host.h"
#include "process/options.h"
#include "table/publish.h"
#include "controller/state.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef ATSK_DEFAULT_VENV
#define ATSK_DEFAULT_VENV "/usr/lib/atsk8s/venv"
#endif
#ifndef ATSK_VERSION
#define ATSK_VERSION "0"
#endif

#define ARGS_MAX 65536u /* bytes of all arguments of one plugin together */
#define VENV_MAX 4096u

/* Made by cffi from bridge_callbacks.h: the controller's main.  Its first call runs the embedding's own start (imports), and if that fails
 * prints a traceback and returns 0, which is ATSK_OK: a return that nobody asked for is therefore a failure, whatever it says. */
int atsk_controller_main(const char *settings_json);

static struct {
  pthread_mutex_t lock;
  unsigned plugins; /* enum atsk_plugin bits that have registered */
  bool is_started;
  enum atsk_plugin first;
  char *arguments; /* of the first to come, one a line, as messages show them */
  char *json;      /* what the controller's main gets */
  char venv[VENV_MAX];
} host = {.lock = PTHREAD_MUTEX_INITIALIZER};

static const char *
plugin_name(enum atsk_plugin plugin)
{
  return plugin == ATSK_PLUGIN_REMAP ? "kubernetes_remap.so" : "kubernetes_ssl.so";
}

/* --- arguments ---------------------------------------------------------------------------------------------------------------- */

/* Blank-separated copy of the arguments, for comparison and messages; NULL: over ARGS_MAX, or no memory. */
static char *
arguments_join(int argc, const char *const argv[])
{
  size_t size = 1;
  for (int i = 0; i < argc; i++) {
    size += strlen(argv[i]) + 1;
  }
  char *out = size <= ARGS_MAX ? malloc(size) : NULL;
  if (out == NULL) {
    return NULL;
  }
  char *end = out;
  for (int i = 0; i < argc; i++) {
    size_t len = strlen(argv[i]);
    if (i > 0) {
      *end++ = ' ';
    }
    memcpy(end, argv[i], len);
    end += len;
  }
  *end = '\0';
  return out;
}

static char *
json_string(char *out, const char *text)
{
  static const char hex[] = "0123456789abcdef";
  *out++                  = '"';
  for (const char *c = text; *c != '\0'; c++) {
    unsigned char byte = (unsigned char)*c;
    if (byte == '"' || byte == '\\') {
      *out++ = '\\';
      *out++ = *c;
    } else if (byte < 0x20) {
      memcpy(out, "\\u00", 4);
      out[4] = hex[byte >> 4];
      out[5] = hex[byte & 15u];
      out += 6;
    } else {
      *out++ = *c;
    }
  }
  *out++ = '"';
  return out;
}

/* {"args": [...], "plugins": ["remap"], "version": "..."}, malloc'ed; NULL: no memory. */
static char *
start_json(enum atsk_plugin plugin, int argc, const char *const argv[])
{
  size_t size = 128 + sizeof ATSK_VERSION;
  for (int i = 0; i < argc; i++) {
    size += 6 * strlen(argv[i]) + 4; /* every byte escaped as a \u00XX, quotes, comma */
  }
  char *out = malloc(size);
  if (out == NULL) {
    return NULL;
  }
  char *end = out + sprintf(out, "{\"args\": [");
  for (int i = 0; i < argc; i++) {
    end = i > 0 ? end + sprintf(end, ", ") : end;
    end = json_string(end, argv[i]);
  }
  sprintf(end, "], \"plugins\": [\"%s\"], \"version\": \"%s\"}", plugin == ATSK_PLUGIN_REMAP ? "remap" : "ssl", ATSK_VERSION);
  return out;
}

/* --venv=DIR, else ATSK8S_VENV, else the one installed with this library; the last --venv wins, as with every option. */
static enum atsk_status
venv_choose(int argc, const char *const argv[], char *why, size_t why_size)
{
  static const char flag[] = "--venv=";
  const char *venv         = getenv("ATSK8S_VENV");
  venv                     = venv != NULL && venv[0] != '\0' ? venv : ATSK_DEFAULT_VENV;
  for (int i = 0; i < argc; i++) {
    if (strncmp(argv[i], flag, sizeof flag - 1) == 0) {
      venv = argv[i] + sizeof flag - 1;
    }
  }
  if (venv[0] != '/' || strlen(venv) >= sizeof host.venv) {
    (void)snprintf(why, why_size, "--venv=%.200s is not an absolute path: name the directory of a Python %d.%d virtual environment",
                   venv, PY_MAJOR_VERSION, PY_MINOR_VERSION);
    return ATSK_E_PYTHON;
  }
  memcpy(host.venv, venv, strlen(venv) + 1); /* bounded just above */
  return ATSK_OK;
}

/* Python would start without its packages, or end the process, if the directory were wrong: look first, and say which option it is. */
static enum atsk_status
venv_check(char *why, size_t why_size)
{
  char path[VENV_MAX + 64];
  const char *remedy = "make it with build.py install, or name another with --venv=DIR";
  (void)snprintf(path, sizeof path, "%s/bin/python3", host.venv);
  if (access(path, X_OK) != 0) {
    (void)snprintf(why, why_size,
                   "--venv: %s: %s; %s (the plugins run as proxy.config.admin.user_id, which must be able to read it and every "
                   "directory above it)",
                   path, strerror(errno), remedy);
    return ATSK_E_PYTHON;
  }
  (void)snprintf(path, sizeof path, "%s/lib/python%d.%d/site-packages", host.venv, PY_MAJOR_VERSION, PY_MINOR_VERSION);
  if (access(path, R_OK | X_OK) != 0) {
    (void)snprintf(why, why_size, "--venv: %s: %s; the virtual environment must be of Python %d.%d: %s", path, strerror(errno),
                   PY_MAJOR_VERSION, PY_MINOR_VERSION, remedy);
    return ATSK_E_PYTHON;
  }
  return ATSK_OK;
}

/* --- the interpreter, on its thread --------------------------------------------------------------------------------------------- */

/* ATS dlopens plugins RTLD_LOCAL, and Python's extension modules look libpython's symbols up globally. */
static const char *
libpython_promote(void)
{
  Dl_info info;
  if (dladdr((void *)(uintptr_t)&Py_InitializeFromConfig, &info) == 0 || info.dli_fname == NULL) {
    return "libpython is not where the loader put it";
  }
  return dlopen(info.dli_fname, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD) != NULL ? NULL : dlerror();
}

/* Isolated: no PYTHON* variables, no user site, no signal handlers.  NULL, or what failed.  Leaves the GIL released, and the cyclic
 * garbage collector disabled. */
static const char *
python_initialise(void)
{
  char program[VENV_MAX + 64];
  (void)snprintf(program, sizeof program, "%s/bin/python3", host.venv);
  PyPreConfig pre;
  PyPreConfig_InitIsolatedConfig(&pre);
  pre.utf8_mode   = 1; /* containers run in the C locale */
  PyStatus status = Py_PreInitialize(&pre);
  PyConfig config;
  PyConfig_InitIsolatedConfig(&config);
  config.install_signal_handlers = 0;
  config.buffered_stdio          = 0; /* never finalised, so nothing would flush it */
  config.write_bytecode          = 0; /* the venv is compiled when it is installed, and not ours to write */
  if (!PyStatus_Exception(status)) {
    status = PyConfig_SetBytesString(&config, &config.program_name, program);
  }
  if (!PyStatus_Exception(status)) {
    status = PyConfig_SetBytesString(&config, &config.executable, program);
  }
  if (!PyStatus_Exception(status)) {
    status = Py_InitializeFromConfig(&config);
  }
  PyConfig_Clear(&config);
  if (PyStatus_Exception(status)) {
    return status.err_msg != NULL ? status.err_msg : "Py_InitializeFromConfig failed";
  }
  (void)PyGC_Disable(); /* a start makes much and drops little; the controller enables it when its first table stands */
  PyEval_SaveThread();  /* cffi takes the GIL itself */
  return NULL;
}

/* No table will come (any more): the start that waits for one fails; a table that stands goes on being served. */
static void
give_up(const char *what, const char *detail)
{
  char why[1024];
  (void)snprintf(why, sizeof why, "%.560s: %.400s", what, detail);
  atsk_controller_log(3, why, strlen(why));
  atsk_controller_failed(why);
}

static void *
controller_thread(void *arg)
{
  (void)arg;
  const char *failed = libpython_promote();
  failed             = failed != NULL ? failed : python_initialise();
  char what[640];
  if (failed != NULL) {
    (void)snprintf(what, sizeof what, "Python did not start in --venv=%.500s", host.venv);
    give_up(what, failed);
  } else {
    /* At once after the initialisation: cffi's start spins for ever on CPython 3.11 if anything has touched a capsule before. */
    int status;
    do { /* the published table stays; Python counts, and waits longer from time to time */
      status = atsk_controller_main(host.json);
    } while (status == ATSK_E_ENDED && !atsk_py_should_stop());
    if (!atsk_py_should_stop() && status != ATSK_E_PYTHON) { /* that one has said why by itself */
      (void)snprintf(what, sizeof what, "the controller in --venv=%.500s ended (status %d)", host.venv, status);
      give_up(what, "the log or, if Python could not import atsk8s, a traceback on standard error (traffic.out) says why");
    }
  }
  atsk_controller_returned();
  return NULL;
}

/* --- the last good state ---------------------------------------------------------------------------------------------------- */

/* Publishes DIR/table.state of --state-dir, if it is there and good; whatever is wrong with it costs a line, never the start.  Returns the
 * version published; 0: none. */
static uint64_t
state_publish(const char *dir, const uint8_t options[ATSK_OPTIONS_DIGEST], uint64_t *written_s)
{
  char why[ATSK_STATE_WHY_MAX] = "";
  char line[ATSK_STATE_WHY_MAX + 512];
  struct atsk_state_loaded *loaded = malloc(sizeof *loaded);
  enum atsk_status status          = loaded == NULL ? ATSK_E_NOMEM : atsk_state_stage(dir, options, loaded, why);
  uint64_t version                 = 0;
  if (status == ATSK_OK) {
    atsk_settings_set_loaded(&loaded->settings);
    status     = atsk_commit_publish(&version); /* drops nothing, so it cannot be refused */
    *written_s = loaded->written_s;
    (void)snprintf(
      line, sizeof line,
      "serving the last good state of --state-dir=%.300s: %u virtual hosts, written at Unix time %llu; live data takes "
      "over once it is there",
      dir, (unsigned)loaded->n_vhosts, (unsigned long long)loaded->written_s);
  } else if (status == ATSK_MISS) {
    (void)snprintf(line, sizeof line, "no last good state in --state-dir=%.300s yet", dir);
  } else {
    (void)snprintf(line, sizeof line, "the last good state of --state-dir=%.300s is ignored: %s; it will be written anew", dir,
                   status == ATSK_E_NOMEM ? "no memory" : why);
  }
  atsk_controller_log(status < 0 ? 2 : 1, line, strlen(line));
  free(loaded);
  return version;
}

static void
state_serve(int argc, const char *const argv[])
{
  uint8_t options[ATSK_OPTIONS_DIGEST];
  uint64_t written_s = 0;
  const char *dir    = atsk_option_text(argc, argv, "state-dir", "ATSK8S_STATE_DIR");
  atsk_options_digest(argc, argv, environ, options);
  uint64_t version = dir != NULL && dir[0] == '/' ? state_publish(dir, options, &written_s) : 0; /* Python refuses other paths */
  atsk_controller_started_with(options, version, written_s);
}

/* The key of affinity's cookies, before the last good state makes the first endpoint sets. */
static enum atsk_status
affinity_begin(int argc, const char *const argv[], char *why, size_t why_size)
{
  char line[ATSK_STATE_WHY_MAX] = "";
  const char *key_file          = atsk_option_text(argc, argv, "session-key-file", "ATSK8S_SESSION_KEY_FILE");
  const char *dir               = atsk_option_text(argc, argv, "state-dir", "ATSK8S_STATE_DIR");
  const bool has_dir            = dir != NULL && dir[0] == '/'; /* Python refuses other paths */
  const enum atsk_status status = atsk_affinity_key_load(key_file, has_dir ? dir : NULL, line, sizeof line);
  if (status < 0) {
    (void)snprintf(why, why_size, "%s", line);
    return status;
  }
  if (line[0] != '\0') {
    atsk_controller_log(2, line, strlen(line));
  }
  return ATSK_OK;
}

/* --- pyhost.h --------------------------------------------------------------------------------------------------------------- */

static enum atsk_status
start_locked(enum atsk_plugin plugin, int argc, const char *const argv[], char *why, size_t why_size)
{
  enum atsk_status status = venv_choose(argc, argv, why, why_size);
  status                  = status == ATSK_OK ? venv_check(why, why_size) : status;
  if (status != ATSK_OK) {
    return status;
  }
  host.first     = plugin;
  host.arguments = arguments_join(argc, argv);
  host.json      = start_json(plugin, argc, argv);
  if (host.arguments == NULL || host.json == NULL) {
    (void)snprintf(why, why_size, "no memory for the arguments, or they are longer than %u bytes together", ARGS_MAX);
    return ATSK_E_NOMEM;
  }
  status = affinity_begin(argc, argv, why, why_size);
  if (status != ATSK_OK) {
    return status;
  }
  state_serve(argc, argv);
  if (atsk_host_thread(controller_thread, NULL) != ATSK_OK) {
    (void)snprintf(why, why_size,
                   "the controller's thread could not be made: is the process limit of this user too low (ulimit -u)?");
    return ATSK_E_PYTHON;
  }
  host.is_started = true;
  return ATSK_OK;
}

static enum atsk_status
compare_locked(enum atsk_plugin plugin, int argc, const char *const argv[], char *why, size_t why_size)
{
  char *arguments = arguments_join(argc, argv);
  if (arguments != NULL && strcmp(arguments, host.arguments) == 0) {
    free(arguments);
    return ATSK_OK;
  }
  (void)snprintf(
    why, why_size,
    "%s has the options \"%.400s\", but %s was loaded with \"%.400s\": one process has one table, so give both the same "
    "options in the same order",
    plugin_name(plugin), arguments != NULL ? arguments : "", plugin_name(host.first), host.arguments);
  free(arguments);
  return ATSK_E_STATE;
}

enum atsk_status
atsk_pyhost_start(enum atsk_plugin plugin, int argc, const char *const argv[], int wait_ms, char *why, size_t why_size)
{
  pthread_mutex_lock(&host.lock);
  enum atsk_status status =
    host.is_started ? compare_locked(plugin, argc, argv, why, why_size) : start_locked(plugin, argc, argv, why, why_size);
  if (status == ATSK_OK) {
    host.plugins |= (unsigned)plugin;
  }
  pthread_mutex_unlock(&host.lock);
  return status == ATSK_OK ? atsk_controller_wait_first_table(wait_ms, why, why_size) : status;
}
