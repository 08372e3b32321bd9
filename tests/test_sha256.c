/* SHA-256: published vectors, in one piece and in many, and of files. */
/* clang-format off */
#include "data_files.h" /* first */
/* clang-format on */

#include "platform/sha256.h"

/* FIPS 180-4's examples (NIST, "SHA256.pdf" and "SHA2_Additional.pdf") and the empty message. `count` bytes of `text`, repeated.
 */
static const struct {
  const char *text;
  size_t repeated;
  const char *digest;
} vectors[] = {
    {"", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    {"\xbd", 1, "68325720aabd7c82f30f554b313d0570c95accbb7dc4b5aae11204c08ffe732b"},
    {"\xc9\x8c\x8e\x55", 1, "7abc22c0ae5af26ce93dbb94433a0e0b2e119d014f8e7f65bd56c61ccccd9504"},
    {"a", 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
};
enum { VECTORS = sizeof vectors / sizeof *vectors };

static char *message_of(size_t *size, int i) {
  const size_t length = strlen(vectors[i].text);
  *size = length * vectors[i].repeated;
  char *message = malloc(*size + 1);
  assert_non_null(message);
  for (size_t k = 0; k < vectors[i].repeated; ++k) memcpy(message + k * length, vectors[i].text, length + 1);
  return message;
}

static void digests_are_the_published_ones(void **state) {
  (void)state;
  char digest[NITI_SHA256_TEXT];
  for (int i = 0; i < VECTORS; ++i) {
    size_t size;
    char *message = message_of(&size, i);
    niti_sha256_of(digest, message, size);
    assert_string_equal(digest, vectors[i].digest);
    free(message);
  }
  niti_sha256_of(digest, NULL, 0);
  assert_string_equal(digest, vectors[0].digest);
}

/* Zeros as NIST has them: 55 to 64 are about the block's edge, where the padding needs a second block. */
static void lengths_about_a_block(void **state) {
  (void)state;
  static const uint8_t zeros[64];
  char digest[NITI_SHA256_TEXT];
  niti_sha256_of(digest, zeros, 55);
  assert_string_equal(digest, "02779466cdec163811d078815c633f21901413081449002f24aa3e80f0b88ef7");
  niti_sha256_of(digest, zeros, 56);
  assert_string_equal(digest, "d4817aa5497628e7c77e6b606107042bbba3130888c5f47a375e6179be789fbb");
  niti_sha256_of(digest, zeros, 57);
  assert_string_equal(digest, "65a16cb7861335d5ace3c60718b5052e44660726da4cd13bb745381b235a1785");
  niti_sha256_of(digest, zeros, 64);
  assert_string_equal(digest, "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b");
}

/* Pieces of every length up to three blocks, and so from every place in a block; the state begins anew by itself. */
static void pieces_add_up(void **state) {
  (void)state;
  static const char expected[] = "092e61d062ffc3b0dc33c4a92cff29dfab8f151b467aab7e24afccea25922204"; /* by Python's hashlib */
  uint8_t message[3000];
  char digest[NITI_SHA256_TEXT];
  NitiSha256 sha;
  for (size_t i = 0; i < sizeof message; ++i) message[i] = (uint8_t)(i * i >> 3);
  niti_sha256_begin(&sha);
  for (size_t piece = 1; piece <= 192; ++piece) {
    for (size_t at = 0, count; at < sizeof message; at += count) {
      count = piece < sizeof message - at ? piece : sizeof message - at;
      niti_sha256_add(&sha, message + at, count);
      niti_sha256_add(&sha, NULL, 0);
    }
    niti_sha256_end(&sha, digest);
    assert_string_equal(digest, expected);
  }
}

static void a_text_has_its_zero_byte(void **state) {
  (void)state;
  char digest[NITI_SHA256_TEXT], expected[NITI_SHA256_TEXT];
  NitiSha256 sha;
  niti_sha256_begin(&sha);
  niti_sha256_add_text(&sha, "abc");
  niti_sha256_end(&sha, digest);
  niti_sha256_of(expected, "abc", 4);
  assert_string_equal(digest, expected);
}

static void files_have_the_digest_of_their_bytes(void **state) {
  (void)state;
  char digest[NITI_SHA256_TEXT], *dir = make_temp();
  for (int i = 0; i < VECTORS; ++i) {
    size_t size;
    char *message = message_of(&size, i);
    const char *path = path_of("%s/message", dir);
    put_file(path, message, size);
    assert_int_equal(niti_sha256_of_file(digest, path), NITI_OK);
    assert_string_equal(digest, vectors[i].digest);
    free(message);
  }
  assert_int_equal(niti_sha256_of_file(digest, dir), NITI_ERROR_FILE);
  assert_non_null(strstr(niti_error(), dir));
  assert_int_equal(niti_sha256_of_file(digest, path_of("%s/missing", dir)), NITI_ERROR_FILE);
  assert_non_null(strstr(niti_error(), "missing: cannot open: "));
  remove_temp(dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(digests_are_the_published_ones),
      cmocka_unit_test(lengths_about_a_block),
      cmocka_unit_test(pieces_add_up),
      cmocka_unit_test(a_text_has_its_zero_byte),
      cmocka_unit_test(files_have_the_digest_of_their_bytes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
