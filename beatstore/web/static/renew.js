// A page that would renew itself, and is redirected, is loaded anew: whoever has been signed out
// then sees the page that asks who they are. A form is left alone, with what was typed.
document.addEventListener("htmx:after:request", event => {
  const redirected = event.detail.ctx.response.raw.type === "opaqueredirect";
  if (redirected && event.target.id === "main") location.reload();
});
