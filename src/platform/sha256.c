/* SHA-256, of memory and of files, as text. */
#include "platform/sha256.h"

#include <string.h>

#include "platform/file.h"
#include "platform/system.h"

void niti_sha256_begin(NitiSha256 *sha) { sha256_init(&sha->state); }

void niti_sha256_add(NitiSha256 *sha, const void *data, size_t size) {
  if (size) sha256_update(&sha->state, size, data);
}

void niti_sha256_add_text(NitiSha256 *sha, const char *text) { niti_sha256_add(sha, text, strlen(text) + 1); }

void niti_sha256_end(NitiSha256 *sha, char digest[NITI_SHA256_TEXT]) {
  static const char digits[] = "0123456789abcdef";
  uint8_t bytes[SHA256_DIGEST_SIZE];
  sha256_digest(&sha->state, sizeof bytes, bytes);
  for (int i = 0; i < SHA256_DIGEST_SIZE; ++i) {
    digest[2 * i] = digits[bytes[i] >> 4];
    digest[2 * i + 1] = digits[bytes[i] & 15];
  }
  digest[2 * SHA256_DIGEST_SIZE] = 0;
}

void niti_sha256_of(char digest[NITI_SHA256_TEXT], const void *data, size_t size) {
  NitiSha256 sha;
  niti_sha256_begin(&sha);
  niti_sha256_add(&sha, data, size);
  niti_sha256_end(&sha, digest);
}

NitiStatus niti_sha256_of_file(char digest[NITI_SHA256_TEXT], const char *path) {
  uint8_t bytes[1 << 14];
  NitiSha256 sha;
  uint64_t size;
  ssize_t got;
  int fd;
  NITI_TRY(niti_file_open_read(&fd, &size, path));
  niti_sha256_begin(&sha);
  while ((got = niti_system.read(fd, bytes, sizeof bytes)) > 0) niti_sha256_add(&sha, bytes, (size_t)got);
  const NitiStatus status = got < 0 ? niti_fail_errno(path, "read") : NITI_OK;
  (void)niti_system.close(fd);
  niti_sha256_end(&sha, digest);
  return status;
}
