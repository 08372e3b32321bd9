/* The process's environment variables, and the name of the host. */
#ifndef NITI_PLATFORM_ENVIRONMENT_H
#define NITI_PLATFORM_ENVIRONMENT_H

#include <stddef.h>

/* The value of an environment variable; NULL where it is unset or empty. Owned by the environment. */
const char *niti_environment_get(const char *name);
/* The machine's name, cut to size - 1 bytes; "localhost" where it has none. size >= 1. */
void niti_environment_host(char *text, size_t size);

#endif
