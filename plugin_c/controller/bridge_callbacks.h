/* C's only call into Python: the controller's main, on a thread that C made.  Read by cffi, like bridge.h. */
extern "Python" int atsk_controller_main(const char *settings_json);
