/* Environment variables and the machine's name. */
#include "platform/environment.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

const char *niti_environment_get(const char *name) {
  const char *value = getenv(name);
  return value && *value ? value : NULL;
}

void niti_environment_host(char *text, size_t size) {
  text[0] = text[size - 1] = 0;
  (void)gethostname(text, size - 1);
  if (!text[0]) (void)snprintf(text, size, "localhost");
}
