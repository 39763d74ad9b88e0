/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opens one plugin file and checks what it says of itself. */
#include "plugin_open.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_PREFIX "terrace-"
#define FILE_SUFFIX ".so"
#define ABI_MAJORS_PROBED 32 /* how far we look for a symbol that tells a plugin's true ABI */

__attribute__((format(printf, 3, 4))) static int why(char **ret_why, int r, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (vasprintf(ret_why, format, args) < 0)
		*ret_why = NULL;
	va_end(args);
	return r;
}

bool ter_plugin_name_valid(const char *name)
{
	size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");

	return length >= 1 && length <= TERRACE_NAME_MAX && name[length] == '\0';
}

int ter_plugin_name_of_file(const char *path, char ret_name[TERRACE_NAME_MAX + 1])
{
	const char *base = strrchr(path, '/');
	char name[TERRACE_NAME_MAX + 1];
	size_t length;

	base = base ? base + 1 : path;
	if (strncmp(base, FILE_PREFIX, strlen(FILE_PREFIX)) != 0)
		return -EINVAL;
	base += strlen(FILE_PREFIX);
	length = strlen(base);
	if (length <= strlen(FILE_SUFFIX) || strcmp(base + length - strlen(FILE_SUFFIX), FILE_SUFFIX) != 0)
		return -EINVAL;
	length -= strlen(FILE_SUFFIX);
	if (length > TERRACE_NAME_MAX)
		return -EINVAL;
	memcpy(name, base, length);
	name[length] = '\0';
	if (!ter_plugin_name_valid(name))
		return -EINVAL;

	memcpy(ret_name, name, length + 1);
	return 0;
}

int ter_plugin_check_owner(const char *path, char **ret_why)
{
	struct stat st;

	if (stat(path, &st) < 0) {
		int r = -errno;

		return why(ret_why, r, "cannot look at %s: %s", path, strerror(-r));
	}
	if (st.st_uid != 0 && st.st_uid != geteuid())
		return why(ret_why, -EPERM, "%s belongs to user %u; it must belong to root or to user %u, who runs this", path,
			   (unsigned)st.st_uid, (unsigned)geteuid());
	if (st.st_mode & (S_IWGRP | S_IWOTH))
		return why(ret_why, -EPERM, "others than its owner may write to %s (mode %04o); chmod go-w it", path,
			   (unsigned)st.st_mode & 07777);
	return 0;
}

/* No symbol of our ABI: say which one the plugin speaks, if it is one at all. */
static int wrong_abi(void *handle, char **ret_why)
{
	for (unsigned major = 0; major < ABI_MAJORS_PROBED; major++) {
		char symbol[32];

		(void)snprintf(symbol, sizeof(symbol), "terrace_plugin_%u", major); /* fits: major has two digits at most */
		if (dlsym(handle, symbol))
			return why(ret_why, -EPROTONOSUPPORT, "built for ABI %u, this daemon speaks %u", major, TERRACE_PLUGIN_ABI_MAJOR);
	}
	return why(ret_why, -EPROTONOSUPPORT, "not a Terrace plugin: it has no symbol terrace_plugin_%u", TERRACE_PLUGIN_ABI_MAJOR);
}

static int check_plugin(const struct terrace_plugin *plugin, const char *name_of_file, char **ret_why)
{
	unsigned nr = 0;

	if (plugin->abi_minor > TERRACE_PLUGIN_ABI_MINOR)
		return why(ret_why, -EPROTONOSUPPORT, "built for ABI %u.%u, this daemon speaks %u.%u", TERRACE_PLUGIN_ABI_MAJOR,
			   plugin->abi_minor, TERRACE_PLUGIN_ABI_MAJOR, TERRACE_PLUGIN_ABI_MINOR);
	/* Minor 0 is the oldest: no plugin knows less of the struct than we do. */
	if (plugin->size < sizeof(*plugin))
		return why(ret_why, -EINVAL, "malformed: its description has %u bytes instead of %zu", plugin->size, sizeof(*plugin));
	if (!plugin->name || strcmp(plugin->name, name_of_file) != 0)
		return why(ret_why, -EINVAL, "its name is '%s', but its file's name says '%s'", plugin->name ? plugin->name : "", name_of_file);
	while (plugin->algos && plugin->algos[nr] && nr <= TER_PLUGIN_ALGOS_MAX)
		nr++;
	if (nr == 0 || nr > TER_PLUGIN_ALGOS_MAX)
		return why(ret_why, -EINVAL, "malformed: it must offer 1 to %u algorithms", TER_PLUGIN_ALGOS_MAX);
	return 0;
}

int ter_plugin_open(const char *path, const struct terrace_host *host, const struct terrace_plugin **ret_plugin, char **ret_why)
{
	const struct terrace_plugin *plugin;
	char name[TERRACE_NAME_MAX + 1];
	void *handle;
	int r;

	r = ter_plugin_name_of_file(path, name);
	if (r < 0)
		return why(ret_why, r, "its file must be called terrace-<name>.so, with a name of up to %d small letters, digits and dashes",
			   TERRACE_NAME_MAX);

	/* NODELETE: a codec library may have left thread-local state behind, and pointers into a plugin live in many places. */
	handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (!handle) {
		const char *said = dlerror();

		return why(ret_why, -ELIBBAD, "the dynamic linker refuses it: %s", said ? said : "no reason given");
	}
	plugin = dlsym(handle, "terrace_plugin_1");
	r = plugin ? check_plugin(plugin, name, ret_why) : wrong_abi(handle, ret_why);
	(void)dlclose(handle); /* gives back the handle only: NODELETE keeps the code */
	if (r < 0)
		return r;

	if (plugin->init) {
		r = plugin->init(host);
		if (r < 0)
			return why(ret_why, r, "its initialisation failed: %s", strerror(-r));
	}
	*ret_plugin = plugin;
	return 0;
}

static bool all_zero(const uint8_t uuid[16])
{
	static const uint8_t zero[16];

	return memcmp(uuid, zero, sizeof(zero)) == 0;
}

static bool compression_complete(const struct terrace_algo *algo)
{
	const struct terrace_compression *c = (const struct terrace_compression *)algo;

	return algo->size >= sizeof(*c) && c->level_min <= c->level_def && c->level_def <= c->level_max && c->scratch_bytes && c->compress &&
	       c->decompress;
}

static bool checksum_complete(const struct terrace_algo *algo)
{
	const struct terrace_checksum *c = (const struct terrace_checksum *)algo;

	return algo->size >= sizeof(*c) && c->digest_len >= 1 && c->digest_len <= TER_PLUGIN_DIGEST_MAX && c->digest;
}

static bool aead_complete(const struct terrace_algo *algo)
{
	const struct terrace_aead *a = (const struct terrace_aead *)algo;

	return algo->size >= sizeof(*a) && a->key_len > 0 && a->nonce_len > 0 && a->tag_len > 0 && a->setkey && a->seal && a->open;
}

static bool erasure_complete(const struct terrace_algo *algo)
{
	const struct terrace_erasure *e = (const struct terrace_erasure *)algo;

	return algo->size >= sizeof(*e) && e->k_max > 0 && e->m_max > 0 && e->unit > 0 && e->encode && e->recover;
}

static bool complete(const struct terrace_algo *algo)
{
	switch (algo->kind) {
	case TERRACE_COMPRESSION:
		return compression_complete(algo);
	case TERRACE_CHECKSUM:
		return checksum_complete(algo);
	case TERRACE_AEAD:
		return aead_complete(algo);
	case TERRACE_ERASURE:
		return erasure_complete(algo);
	default:
		return false;
	}
}

int ter_plugin_check_algo(const struct terrace_algo *algo, char **ret_why)
{
	int r;

	/* The head first: nothing beyond `size` may be read. */
	if (algo->size < sizeof(*algo) || !algo->name || !ter_plugin_name_valid(algo->name) || all_zero(algo->uuid) || algo->format == 0 ||
	    !algo->selftest)
		return why(ret_why, -EINVAL, "malformed: an algorithm needs a name, a UUID, a format and a self-test");
	if (!complete(algo))
		return why(ret_why, -EINVAL, "malformed: '%s' lacks functions or has limits that make no sense", algo->name);

	r = algo->selftest();
	if (r != 0)
		return why(ret_why, r < 0 ? r : -EBADMSG, "the self-test of '%s' failed: %s", algo->name, strerror(r < 0 ? -r : EBADMSG));
	return 0;
}
