/* Reads the quotas of control groups from the files that the kernel provides. */
#define _GNU_SOURCE /* asprintf */
#include "platform/quota.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 8192, NAME = 4096 };

/* Where one version's groups are mounted, and which group is the root of that mount. */
typedef struct Mount {
  char at[NAME], root[NAME];
} Mount;

static bool read_line(char line[LINE], const char *folder, const char *name) {
  char *path = NULL;
  if (asprintf(&path, "%s/%s", folder, name) < 0) return false;
  FILE *file = fopen(path, "re");
  free(path);
  if (!file) return false;
  const bool whole = fgets(line, LINE, file) != NULL;
  (void)fclose(file);
  return whole;
}

static bool read_number(int64_t *value, const char *folder, const char *name) {
  char line[LINE];
  long long number;
  if (!read_line(line, folder, name) || sscanf(line, "%lld", &number) != 1) return false;
  *value = number;
  return true;
}

/* The quota of the group in this folder, in cores; 0: none. */
static int folder_cores(const char *folder, bool v2) {
  char line[LINE];
  int64_t quota = 0, period = 0;
  if (v2) {
    long long q, p;
    if (!read_line(line, folder, "cpu.max") || sscanf(line, "%lld %lld", &q, &p) != 2) return 0; /* "max": none */
    quota = q;
    period = p;
  } else if (!read_number(&quota, folder, "cpu.cfs_quota_us") || !read_number(&period, folder, "cpu.cfs_period_us")) {
    return 0;
  }
  if (quota <= 0 || period <= 0) return 0;
  const int64_t cores = quota / period + (quota % period != 0);
  return cores < INT_MAX ? (int)cores : INT_MAX;
}

/* The smallest quota from the group's folder up to the mount's. */
static int path_cores(const char *root, const Mount *mount, const char *path, bool v2) {
  char *folder = NULL;
  int least = 0;
  const size_t shown = strcmp(mount->root, "/") == 0 ? 0 : strlen(mount->root);
  const bool inside = strncmp(path, mount->root, shown) == 0 && (path[shown] == '/' || path[shown] == 0);
  path += inside ? shown : strlen(path); /* outside what is mounted: only the mount's own group */
  if (asprintf(&folder, "%s%s%s", root, mount->at, path) < 0) return 0;
  const size_t top = strlen(root) + strlen(mount->at);
  for (;;) {
    const int cores = folder_cores(folder, v2);
    if (cores > 0 && (least == 0 || cores < least)) least = cores;
    char *slash = strrchr(folder, '/');
    if (!slash || (size_t)(slash - folder) < top) break;
    *slash = 0;
  }
  free(folder);
  return least;
}

/* Whether `word` is among words between commas. */
static bool has_word(const char *list, const char *word) {
  const size_t length = strlen(word);
  for (const char *at = list; (at = strstr(at, word)) != NULL; at += length) {
    if ((at == list || at[-1] == ',') && (at[length] == 0 || at[length] == ',' || at[length] == '\n')) return true;
  }
  return false;
}

static bool find_mount(Mount *mount, const char *root, bool v2) {
  char line[LINE], *path = NULL;
  bool found = false;
  if (asprintf(&path, "%s/proc/self/mountinfo", root) < 0) return false;
  FILE *file = fopen(path, "re");
  free(path);
  while (file && !found && fgets(line, sizeof line, file)) {
    char type[32], options[NAME];
    const char *rest = strstr(line, " - ");
    if (!rest || sscanf(rest, " - %31s %*s %4095s", type, options) != 2) continue;
    if (sscanf(line, "%*s %*s %*s %4095s %4095s", mount->root, mount->at) != 2) continue;
    found = v2 ? strcmp(type, "cgroup2") == 0 : strcmp(type, "cgroup") == 0 && has_word(options, "cpu");
  }
  if (file) (void)fclose(file);
  return found;
}

/* line: "ID:CONTROLLERS:PATH\n" of /proc/self/cgroup; version 2 has no controllers. */
static int line_cores(const char *root, char *line) {
  Mount mount;
  char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
  if (!path) return 0;
  *controllers++ = *path++ = 0;
  path[strcspn(path, "\n")] = 0;
  const bool v2 = !*controllers;
  if ((!v2 && !has_word(controllers, "cpu")) || !find_mount(&mount, root, v2)) return 0;
  return path_cores(root, &mount, path, v2);
}

int niti_quota_cores(const char *root) {
  char line[LINE], *path = NULL;
  int least = 0;
  if (asprintf(&path, "%s/proc/self/cgroup", root) < 0) return 0;
  FILE *file = fopen(path, "re");
  free(path);
  while (file && fgets(line, sizeof line, file)) {
    const int cores = line_cores(root, line);
    if (cores > 0 && (least == 0 || cores < least)) least = cores;
  }
  if (file) (void)fclose(file);
  return least;
}
