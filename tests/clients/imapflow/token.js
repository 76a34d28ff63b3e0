// token.js: imapflow with an access token instead of a password; one line of JSON of what it saw. sasl_clients.py starts
// it with the connection's settings in CHECK.
'use strict';

const {ImapFlow} = require('imapflow');

const settings = JSON.parse(process.env.CHECK);

async function main() {
    const client = new ImapFlow({host: 'localhost', port: settings.port, secure: settings.secure,
        tls: {rejectUnauthorized: true, ca: settings.ca}, auth: {user: settings.name, accessToken: settings.token},
        logger: false});
    await client.connect();
    const lock = await client.getMailboxLock('INBOX');
    const said = {exists: client.mailbox.exists};
    lock.release();
    await client.logout();
    process.stdout.write(JSON.stringify(said) + '\n');
}

main().catch(e => {
    process.stderr.write(e.stack + '\n' + JSON.stringify([e.serverResponseCode, e.responseText, e.oauthError]) + '\n');
    process.exit(1);
});
