/* SHA-256 (FIPS 180-4), by nettle: it allocates nothing and cannot fail, and takes the processor's own instructions where it has
 * them. */
#ifndef NITI_PLATFORM_SHA256_H
#define NITI_PLATFORM_SHA256_H

#include <nettle/sha2.h>

#include "platform/status.h"

enum { NITI_SHA256_TEXT = 2 * SHA256_DIGEST_SIZE + 1 /* a digest as lower-case hexadecimal digits, and a zero byte */ };

/* The state of one digest: plain memory, which may be left at any moment. */
typedef struct NitiSha256 {
  struct sha256_ctx state;
} NitiSha256;

void niti_sha256_begin(NitiSha256 *sha);
/* data may be NULL where size is 0. */
void niti_sha256_add(NitiSha256 *sha, const void *data, size_t size);
/* The text with its zero byte. */
void niti_sha256_add_text(NitiSha256 *sha, const char *text);
/* The digest of all that was added; afterwards *sha begins anew. */
void niti_sha256_end(NitiSha256 *sha, char digest[NITI_SHA256_TEXT]);

/* Of one piece. */
void niti_sha256_of(char digest[NITI_SHA256_TEXT], const void *data, size_t size);
/* Of a regular file. NITI_ERROR_FILE, or _MEMORY where the system says so; *digest is then undefined. */
NitiStatus niti_sha256_of_file(char digest[NITI_SHA256_TEXT], const char *path);

#endif
